"""Terms that need a student, and the interpolation that goes with them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.models import load_teacher
from vitdfq.synthesis import synthesize
from vitdfq.synthesis.generator.mixup import interpolate
from vitdfq.synthesis.losses.discrepancy import discrepancy
from vitdfq.synthesis.losses.margin_discrepancy import DISTANCES, jensen_shannon, margin_discrepancy, total_variation_distance
from vitdfq.synthesis.objective.networks import Networks, student_pass

FIXED = {"margin": "fixed", "mean": 0.3, "deviation": 0.0}


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def disagreeing(teacher_logits, student_logits, step=0):
    """A context in which teacher and student gave these logits."""
    views = len(teacher_logits)
    ctx, _ = make_context(make_tiny("vit"), randn(views, 3, 32, 32), {"class_confidence": {}})
    passed = [SimpleNamespace(logits=student_logits)]
    return replace(ctx, logits=teacher_logits, step=step, passes={"margin_discrepancy": passed, "discrepancy": passed})


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_is_zero_for_equal_logits_and_symmetric(name):
    teacher, student = randn(4, 10), randn(4, 10, seed=2)
    distance = DISTANCES[name]
    torch.testing.assert_close(distance(teacher, teacher), torch.zeros(4), rtol=0, atol=1e-7)
    torch.testing.assert_close(distance(teacher, student), distance(student, teacher))
    assert (distance(teacher, student) > 1e-3).all()


def test_distances_of_predictions_that_exclude_each_other():
    one, other = torch.tensor([[50.0, 0, 0]]), torch.tensor([[0.0, 50, 0]])
    assert total_variation_distance(one, other).item() == pytest.approx(1)
    assert jensen_shannon(one, other).item() == pytest.approx(0.693147)
    assert DISTANCES["l1"](one, other).item() == pytest.approx(100 / 3)


def test_only_the_total_variation_has_a_slope_near_equality():
    """The reason for the default: the divergence is quadratic there, and would start nothing."""

    def slope(distance):
        student = (randn(1, 10) + 1e-3 * randn(1, 10, seed=2)).requires_grad_()
        distance(randn(1, 10), student).backward()
        return student.grad.norm()

    assert slope(total_variation_distance) > 100 * slope(jensen_shannon)


def test_the_loss_is_the_margin_where_they_agree():
    logits = randn(3, 10)
    assert margin_discrepancy(disagreeing(logits, logits), **FIXED).tolist() == pytest.approx([0.3] * 3)
    relative = margin_discrepancy(disagreeing(logits, logits))
    assert relative.tolist() == [0, 0, 0]  # a share of nothing


def test_without_deviation_it_is_a_plain_hinge():
    teacher, student = randn(8, 10), randn(8, 10) + randn(8, 10, seed=2)
    found = total_variation_distance(teacher, student)
    expected = [max(0.3 - value, 0.0) for value in found.tolist()]
    assert 0.0 in expected and max(expected) > 0  # both sides of the hinge
    assert margin_discrepancy(disagreeing(teacher, student), **FIXED).tolist() == pytest.approx(expected)


def test_the_slope_is_minus_one_inside_and_zero_outside():
    teacher, student = randn(8, 10), (randn(8, 10) + randn(8, 10, seed=2)).requires_grad_()
    found = total_variation_distance(teacher, student)
    wanted = torch.autograd.grad(found[found < 0.3].sum(), student, retain_graph=True)[0]
    [got] = torch.autograd.grad(margin_discrepancy(disagreeing(teacher, student), **FIXED).sum(), student)
    torch.testing.assert_close(got, -wanted)
    assert wanted.abs().sum() > 0


@pytest.mark.parametrize("mean", [0.1, 0.01, 0.001])
def test_the_loss_vanishes_with_the_margin(mean):
    logits = randn(3, 10)
    values = margin_discrepancy(disagreeing(logits, logits), margin="fixed", mean=mean, deviation=mean / 3)
    assert values.max() < 3 * mean


def test_the_relative_margin_is_a_share_of_the_batch_and_carries_no_gradient():
    teacher, student = randn(4, 10), (randn(4, 10) + 0.3 * randn(4, 10, seed=2)).requires_grad_()
    found = total_variation_distance(teacher, student)
    ctx = disagreeing(teacher, student)
    noise = torch.stack([torch.randn((), generator=rng) for rng in ctx.generators("margin_discrepancy")])
    margin = (1.5 * found.mean() * (1 + noise / 3)).clamp(0, 0.9)
    values = margin_discrepancy(ctx)
    torch.testing.assert_close(values, (margin - found).relu())
    assert (values > 0).any()
    [got] = torch.autograd.grad(values.sum(), student)
    [wanted] = torch.autograd.grad((margin.detach() - found).relu().sum(), student)
    torch.testing.assert_close(got, wanted)


def test_margins_are_fresh_at_every_view_and_step_and_held_within_their_limits():
    logits = randn(64, 10)
    first, again, later = (
        margin_discrepancy(disagreeing(logits, logits, step), margin="fixed", mean=0.5, deviation=0.5) for step in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first != later).float().mean() > 0.5
    assert first.min() == 0 and first.max().item() == pytest.approx(0.9)
    assert len(set(first.tolist())) > 20


def test_discrepancy_by_hand():
    teacher, student = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert discrepancy(disagreeing(teacher, student)).tolist() == [-1.5, -0.5]


def test_a_real_teacher_and_its_student_are_driven_apart():
    """One student whose ranges stay: with fresh ones, as the engine has them, a few images say little."""
    teacher = load_teacher("zoo:vit")
    images = synthesize(teacher, method="noise", num_images=8).requires_grad_()
    optimizer, values = torch.optim.Adam([images], lr=0.1), []
    with Networks(teacher, []) as networks:
        student = networks.student("w4a4", images.detach(), step=0, refresh_every=1000)
        for step in range(20):
            passed = networks.run(images)
            ctx = disagreeing(passed.logits, networks.run(images, student).logits, step)
            loss = discrepancy(ctx).mean()
            [images.grad] = torch.autograd.grad(loss, images)
            optimizer.step()
            values.append(-loss.item())
    assert values[-1] > 4 * values[0]  # 12 to 17 times over six seeds


@pytest.mark.parametrize("name", ["margin_discrepancy", "discrepancy"])
def test_no_gradient_reaches_the_teacher(name):
    teacher, images = make_tiny("vit"), randn(2, 3, 32, 32).requires_grad_()
    ctx, (term,) = make_context(teacher, images, {name: {}})
    term.value(ctx).sum().backward()
    assert images.grad.norm() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"distance": "tw"}, "unknown distance 'tw'; choices: js, l1, tv"),
        ({"margin": "relativ"}, "unknown margin 'relativ', did you mean 'relative'"),
        ({"refresh_every": 0}, "refresh_every is a number of steps, at least 1, got 0"),
        ({"bits": "4"}, "bits"),
    ],
)
def test_wrong_options_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        synthesize(make_tiny("vit"), method="agm", num_images=1, steps=1, losses={"margin_discrepancy": {"after": 0.0, **spec}})


def test_the_student_pass_asks_for_what_the_options_say():
    asked = []
    networks = SimpleNamespace(student=lambda *args: asked.append(args), run=lambda images, student: images)
    ctx = disagreeing(randn(2, 10), randn(2, 10), step=7)
    assert student_pass(ctx, networks, bits="w3a3", refresh_every=5)[0] is ctx.images
    [(bits, images, step, refresh_every)] = asked
    assert (bits, step, refresh_every) == ("w3a3", 7, 5) and not images.requires_grad


@given(alpha=st.floats(0.01, 10), probability=st.floats(0, 1), seed=st.integers(0, 1000))
def test_interpolated_images_lie_between_images_of_the_batch(alpha, probability, seed):
    images = randn(5, 3, 4, 4)
    mixed = interpolate(images, torch.Generator().manual_seed(seed), alpha=alpha, probability=probability)
    assert mixed.shape == images.shape and mixed.isfinite().all()
    assert (mixed <= images.amax(0) + 1e-5).all() and (mixed >= images.amin(0) - 1e-5).all()
    assert torch.equal(mixed, interpolate(images, torch.Generator().manual_seed(seed), alpha=alpha, probability=probability))


def test_each_mixed_image_lies_on_the_line_between_itself_and_one_other():
    images = torch.eye(64).view(64, 1, 8, 8)  # what is mixed of whom can be read off
    mixed = interpolate(images, torch.Generator().manual_seed(0), probability=1.0).flatten(1)
    own = mixed.diagonal()
    torch.testing.assert_close(mixed.sum(1), torch.ones(64))
    assert ((mixed > 0).sum(1) <= 2).all()
    assert 0.3 < own.mean() < 0.7 and len(set(own.tolist())) > 50
    assert ((own < 0.1) | (own > 0.9)).float().mean() > 0.4  # Beta(.4, .4): most are mostly one of the two; uniform: 0.2


def test_an_image_is_left_alone_with_the_rest_of_the_probability():
    images = torch.eye(256).view(256, 1, 16, 16)
    untouched = [
        (interpolate(images, torch.Generator().manual_seed(0), probability=share) == images)
        .all(-1)
        .all(-1)
        .all(-1)
        .float()
        .mean()
        for share in (0.0, 0.5, 1.0)
    ]
    assert untouched[0] == 1
    assert 0.4 < untouched[1] < 0.6
    assert untouched[2] < 0.05


@pytest.mark.parametrize(("options", "message"), [({"alpha": 0.0}, "alpha"), ({"probability": 1.5}, "probability")])
def test_wrong_interpolations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        interpolate(randn(2, 3, 4, 4), torch.Generator(), **options)
