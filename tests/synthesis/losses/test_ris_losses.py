"""RIS-style losses: robustness to perturbations, and correlation of predictions."""

import math
from types import SimpleNamespace

import pytest
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import LOSSES, TeacherFacts, synthesize
from vitdfq.synthesis.losses.label_correlation import label_correlation
from vitdfq.synthesis.losses.perturbation_robustness import distance_between, inconsistency, perturbation_robustness
from vitdfq.synthesis.objective.context import Pass
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.perturbations import AUGMENTATIONS, augment, blur, crop, flip, perturbed_weights, roll, tone
from vitdfq.synthesis.seeds import generator

NAME = "perturbation_robustness"
KINDS = ("vit", "deit", "swin")


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_pass(features, logits):
    return Pass(torch.zeros(len(features), 3, 4, 4), logits, features, {})


def robustness(clean, passes, **options):
    fields = {"features": clean.features, "logits": clean.logits, "passes": {NAME: passes}}
    return perturbation_robustness(SimpleNamespace(**fields), **options)


def test_robustness_is_0_for_equal_passes():
    clean = make_pass(randn(3, 8), randn(3, 5))
    torch.testing.assert_close(robustness(clean, [clean, clean]), torch.zeros(3), rtol=0, atol=1e-5)


def test_robustness_by_hand():
    clean = make_pass(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    rotated = make_pass(torch.tensor([[1.0, 1.0], [0.0, 3.0]]), torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]))
    # The images are 1 apart. The first turns by 45° and its probabilities move from 1/2, 1/2 to 3/4, 1/4; in one pass of two.
    expected = [2.0 * (1 - math.sqrt(0.5)) / 2 + 3.0 * 0.5 / 2, 0.0]
    values = robustness(clean, [clean, rotated], w_f=2.0, w_p=3.0)
    assert values.tolist() == pytest.approx(expected, abs=1e-5)


@given(st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_feature_inconsistency_is_invariant_to_the_scale_of_features(scale, seed):
    clean, other, logits = randn(4, 6, seed=seed), randn(4, 6, seed=seed + 1), randn(4, 5)
    plain, _ = inconsistency(make_pass(clean, logits), [make_pass(other, logits)])
    scaled, _ = inconsistency(make_pass(clean * scale, logits), [make_pass(other * scale, logits)])
    torch.testing.assert_close(plain, scaled, rtol=1e-3, atol=1e-5)


def test_distance_between_images_by_hand():
    features = torch.tensor([[1.0, 0.1], [1.0, -0.1]])
    distance = 1 - (1 - 0.01) / 1.01
    assert distance_between(features).item() == pytest.approx(distance, rel=1e-4)
    assert not distance_between(features.requires_grad_()).requires_grad
    assert distance_between(torch.ones(3, 4)).item() == pytest.approx(1e-4)  # not less
    assert distance_between(torch.ones(1, 4)).item() == 1


def test_disjoint_predictions_have_inconsistency_2():
    one_hot = 100 * torch.eye(4)
    _, predictions = inconsistency(make_pass(one_hot, one_hot), [make_pass(one_hot, one_hot.roll(1, 0))])
    assert predictions.tolist() == pytest.approx([2.0] * 4)


def test_tolerated_inconsistency_costs_nothing():
    clean, other = make_pass(randn(3, 8), randn(3, 5)), make_pass(randn(3, 8, seed=2), randn(3, 5, seed=2))
    features, predictions = inconsistency(clean, [other])
    assert (robustness(clean, [other], tau_f=features.max().item() + 1e-4, tau_p=2.0) == 0).all()
    part = robustness(clean, [other], tau_f=0.1, tau_p=2.0)
    torch.testing.assert_close(part, (features - 0.1).relu())
    assert (robustness(clean, [other], w_f=0.0) == 0.5 * predictions).all()


def test_epsilon_tolerates_a_share_of_the_inconsistency_of_noise():
    clean, other = make_pass(randn(3, 8), randn(3, 5)), make_pass(randn(3, 8, seed=2), randn(3, 5, seed=2))
    features, predictions = inconsistency(clean, [other])
    values = robustness(clean, [other, clean, other], epsilon=0.5)  # the images of noise are the same here
    expected = (features - 0.5 * features.mean()).relu() + 0.5 * (predictions - 0.5 * predictions.mean()).relu()
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(("options", "count"), [({}, 3), ({"inputs": 0}, 1), ({"inputs": 1, "weights": 2, "epsilon": 0.3}, 7)])
def test_number_of_passes_follows_the_options(options, count):
    ctx, (term,) = make_context(make_tiny("vit"), randn(2, 3, 32, 32), {NAME: options})
    assert len(ctx.passes[NAME]) == count
    assert term.value(ctx).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_step_lowers_it_at_a_fixed_distance_between_images(kind):
    """Fixed, because it has no gradient; optimization alone would shrink it."""
    teacher, images = make_tiny(kind), randn(3, 3, 32, 32).requires_grad_()
    ctx, (term,) = make_context(teacher, images, {NAME: {}})
    before = term.value(ctx).sum()
    (gradient,) = torch.autograd.grad(before, images)
    after, _ = make_context(teacher, images.detach() - 0.1 * gradient / gradient.norm(), {NAME: {}})
    features, predictions = inconsistency(after, after.passes[NAME])
    assert (features * distance_between(after.features) / distance_between(ctx.features) + 0.5 * predictions).sum() < before


def test_no_perturbation_is_refused():
    with pytest.raises(ValueError, match="needs a perturbation, got inputs=0 and weights=0"):
        make_context(make_tiny("vit"), randn(2, 3, 32, 32), {NAME: {"inputs": 0, "weights": 0}})


@pytest.mark.parametrize("kind", KINDS)
def test_perturbed_passes_are_reproducible_and_leave_the_teacher_unchanged(kind):
    teacher, images = make_tiny(kind), randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    first, again = (make_context(teacher, images, {NAME: {}})[0].passes[NAME] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.logits, other.logits)
    assert len({result.logits.sum().item() for result in first}) == 3
    assert torch.equal(first[2].images, images) and not torch.equal(first[0].images, images)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_perturbed_images_do_not_depend_on_their_batch(kind):
    teacher, images = make_tiny(kind), randn(3, 3, 32, 32)
    together = make_context(teacher, images, {NAME: {}})[0].passes[NAME]
    alone = make_context(teacher, images[2:], {NAME: {}}, first=2)[0].passes[NAME]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.images[2:], other.images)
        torch.testing.assert_close(one.logits[2:], other.logits, rtol=1e-4, atol=1e-5)


def test_passes_with_replaced_parameters_are_recorded():
    teacher, images = make_tiny("vit"), randn(2, 3, 32, 32)
    with Networks(teacher, ["blocks.2.attn.class_row"]) as networks:
        plain = networks.run(images)
        same = networks.run(images, parameters=dict(teacher.named_parameters()))
        other = networks.run(images, parameters=perturbed_weights(teacher, generator(0), 0.2))
    rows = [result.recorded["blocks.2.attn.class_row"] for result in (plain, same, other)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert torch.equal(plain.logits, same.logits) and torch.equal(plain.logits, teacher(images))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_layers_are_perturbed_and_nothing_else(kind):
    teacher = make_tiny(kind)
    changed = perturbed_weights(teacher, generator(0), 0.05)
    weights = dict(teacher.named_parameters())
    for part in ("qkv", "proj", "fc1", "fc2"):
        assert any(name.endswith(f"{part}.weight") for name in changed)
    assert not any("norm" in name or "head" in name or "bias" in name or "token" in name for name in changed)
    assert all(weights[name].ndim >= 2 for name in changed)
    for name, weight in changed.items():
        assert ((weight - weights[name]).std() / weights[name].std()).item() == pytest.approx(0.05, rel=0.1)


def test_no_two_rows_of_a_weight_larger_than_the_pool_have_the_same_noise(monkeypatch):
    monkeypatch.setattr("vitdfq.synthesis.objective.perturbations.POOL", 101)
    teacher = make_tiny("vit")
    name = "blocks.0.mlp.fc1.weight"
    changed = perturbed_weights(teacher, generator(0), 1.0)[name] - teacher.get_parameter(name)
    assert changed.shape == (128, 32) and changed[:101].unique(dim=0).shape[0] == 101
    assert changed.std() / teacher.get_parameter(name).std() == pytest.approx(1.0, rel=0.2)


def test_flat_images_change_under_noise_but_not_under_a_flip():
    """The reason why noise is always one of the perturbations."""
    teacher, flat = make_tiny("vit"), torch.stack([torch.full((3, 32, 32), level) for level in (0.1, 0.5)])
    with Networks(teacher, []) as networks:
        clean, mirrored = networks.run(flat), networks.run(flip(flat, torch.rand(2, 4)))
        torch.testing.assert_close(inconsistency(clean, [mirrored])[0], torch.zeros(2), rtol=0, atol=3e-3)
    ctx, _ = make_context(teacher, flat, {NAME: {"inputs": 1, "weights": 0}})
    assert (inconsistency(ctx, ctx.passes[NAME])[0] > 0.01).all()


class TestAugmentations:
    images, uniform = randn(6, 3, 16, 24), torch.rand(6, 4, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("augmentation", AUGMENTATIONS)
    def test_each_keeps_the_shape_and_flat_images_flat(self, augmentation):
        assert augmentation(self.images, self.uniform).shape == self.images.shape
        assert not torch.equal(augmentation(self.images, self.uniform), self.images)
        flat = augmentation(torch.ones(6, 3, 16, 24), self.uniform)
        torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat))
        assert augmentation is tone or torch.allclose(flat, torch.ones(()))

    def test_roll_equals_that_of_torch(self):
        uniform = torch.tensor([[0.0, 0.99, 0, 0], [0.5, 0.0, 0, 0]])  # limit 4 for 64 pixels, 2 for 32
        images = randn(2, 3, 64, 32)
        expected = [images[0].roll((-4, 2), (1, 2)), images[1].roll((0, -2), (1, 2))]
        assert torch.equal(roll(images, uniform), torch.stack(expected))

    def test_crop_keeps_at_least_four_fifths_of_a_side(self):
        assert torch.allclose(crop(self.images, torch.ones(6, 4) - 1e-6), self.images, atol=1e-5)
        ramp = torch.arange(20.0).expand(1, 3, 20, 20)
        cut = crop(ramp, torch.zeros(1, 4))
        assert (cut.min().item(), cut.max().item()) == (0, 15)

    def test_blur_of_a_dot_is_its_kernel(self):
        dot = torch.zeros(2, 1, 9, 9)
        dot[:, 0, 4, 4] = 256
        small, large = blur(dot, torch.tensor([[0.1, 0, 0, 0], [0.9, 0, 0, 0]]))[:, 0]
        assert small[4].tolist() == [0, 0, 0, 32, 64, 32, 0, 0, 0]
        assert large[4].tolist() == [0, 0, 6, 24, 36, 24, 6, 0, 0]

    def test_each_view_chooses_by_its_own_stream(self):
        images = randn(24, 3, 16, 16)
        together = augment(images, [generator(0, index) for index in range(24)])
        alone = torch.cat([augment(images[index : index + 1], [generator(0, index)]) for index in range(24)])
        torch.testing.assert_close(together, alone)
        chosen = {int(torch.rand(5, generator=generator(0, index))[0] * 5) for index in range(24)}
        assert chosen == set(range(5))


class TestLabelCorrelation:
    def test_is_0_for_distinct_classes_and_1_for_equal_predictions(self):
        assert label_correlation(SimpleNamespace(logits=100 * torch.eye(4))).tolist() == [0] * 4
        equal = torch.tensor([3.0, 1.0, 0.0]).expand(4, 3)
        assert label_correlation(SimpleNamespace(logits=equal)).tolist() == pytest.approx([1] * 4)

    def test_by_hand(self):
        predictions = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]])
        pairs = torch.corrcoef(predictions)
        expected = [sum(max(pairs[a, b].item(), 0) for b in range(3) if b != a) / 2 for a in range(3)]
        assert label_correlation(SimpleNamespace(logits=predictions.log())).tolist() == pytest.approx(expected, abs=1e-6)

    def test_is_0_for_a_single_image(self):
        assert label_correlation(SimpleNamespace(logits=randn(1, 4))).tolist() == [0]


def test_ris_runs_with_regions_and_with_pruning():
    teacher = make_tiny("vit")
    epsilon = {NAME: {"epsilon": 0.1, "after": 0.0}}
    images = synthesize(teacher, method="ris", num_images=3, steps=4, max_regions=4, losses=epsilon)
    pruned = synthesize(teacher, method="ris", num_images=3, steps=4, prune_at=[0.3], losses=epsilon)
    assert images.isfinite().all() and pruned.isfinite().all()


def test_these_losses_compare_images():
    facts = TeacherFacts.of(make_tiny("vit"))
    assert LOSSES[NAME].compares(facts) and LOSSES["label_correlation"].compares(facts)


def test_perturbations_move_no_content_in_a_run_with_pruning(monkeypatch):
    """A flip or shift would move content out of the kept patches."""
    calls = []
    run = Networks.run

    def spying(self, images, *others, **named):
        calls.append((self.kept_tokens is not None, images.detach()))
        return run(self, images, *others, **named)

    monkeypatch.setattr(Networks, "run", spying)
    losses = {NAME: {"after": 0.0, "every": 1}}
    synthesize(make_tiny("vit"), method="ris", num_images=2, steps=4, prune_at=[0.5], losses=losses)
    inputs = [images for kept_tokens, images in calls if kept_tokens]
    passes = [inputs[first : first + 4] for first in range(0, len(inputs), 4)]  # the teacher's, two of images, one of weights
    assert len(passes) == 2
    for clean, *changed in passes:
        assert [round((images - clean).std().item(), 1) for images in changed] == [0.2, 0.2, 0]
