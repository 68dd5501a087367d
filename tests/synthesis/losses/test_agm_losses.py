"""Losses that compare teacher and student, and mixup."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
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
    passed = [SimpleNamespace(logits=student_logits, outputs=student_logits)]
    return replace(ctx, outputs=teacher_logits, step=step, passes={"margin_discrepancy": passed, "discrepancy": passed})


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_is_zero_for_equal_logits_and_symmetric(name):
    teacher, student = randn(4, 10), randn(4, 10, seed=2)
    distance = DISTANCES[name]
    torch.testing.assert_close(distance(teacher, teacher), torch.zeros(4), rtol=0, atol=1e-7)
    torch.testing.assert_close(distance(teacher, student), distance(student, teacher))
    assert (distance(teacher, student) > 1e-3).all()


def test_distances_of_disjoint_predictions():
    one, other = torch.tensor([[50.0, 0, 0]]), torch.tensor([[0.0, 50, 0]])
    assert total_variation_distance(one, other).item() == pytest.approx(1)
    assert jensen_shannon(one, other).item() == pytest.approx(0.693147)
    assert DISTANCES["l1"](one, other).item() == pytest.approx(100 / 3)


def test_only_total_variation_has_a_gradient_near_equality():
    """The reason for the default: the divergence is quadratic there, and would start nothing."""

    def slope(distance):
        student = (randn(1, 10) + 1e-3 * randn(1, 10, seed=2)).requires_grad_()
        distance(randn(1, 10), student).backward()
        return student.grad.norm()

    assert slope(total_variation_distance) > 100 * slope(jensen_shannon)


def test_is_the_margin_where_teacher_and_student_agree():
    logits = randn(3, 10)
    assert margin_discrepancy(disagreeing(logits, logits), **FIXED).tolist() == pytest.approx([0.3] * 3)
    relative = margin_discrepancy(disagreeing(logits, logits))
    assert relative.tolist() == [0, 0, 0]  # a share of nothing


def test_is_a_plain_hinge_without_deviation():
    teacher, student = randn(8, 10), randn(8, 10) + randn(8, 10, seed=2)
    distances = total_variation_distance(teacher, student)
    expected = [max(0.3 - value, 0.0) for value in distances.tolist()]
    assert 0.0 in expected and max(expected) > 0  # both sides of the hinge
    assert margin_discrepancy(disagreeing(teacher, student), **FIXED).tolist() == pytest.approx(expected)


def test_gradient_is_minus_that_of_the_distance_inside_the_margin_and_0_outside():
    teacher, student = randn(8, 10), (randn(8, 10) + randn(8, 10, seed=2)).requires_grad_()
    distances = total_variation_distance(teacher, student)
    expected = torch.autograd.grad(distances[distances < 0.3].sum(), student, retain_graph=True)[0]
    [gradient] = torch.autograd.grad(margin_discrepancy(disagreeing(teacher, student), **FIXED).sum(), student)
    torch.testing.assert_close(gradient, -expected)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("mean", [0.1, 0.01, 0.001])
def test_vanishes_with_the_margin(mean):
    logits = randn(3, 10)
    values = margin_discrepancy(disagreeing(logits, logits), margin="fixed", mean=mean, deviation=mean / 3)
    assert values.max() < 3 * mean


def test_relative_margin_is_proportional_to_the_batch_mean_without_gradient():
    teacher, student = randn(4, 10), (randn(4, 10) + 0.3 * randn(4, 10, seed=2)).requires_grad_()
    distances = total_variation_distance(teacher, student)
    ctx = disagreeing(teacher, student)
    noise = torch.stack([torch.randn((), generator=rng) for rng in ctx.generators("margin_discrepancy")])
    margin = (1.5 * distances.mean() * (1 + noise / 3)).clamp(0, 0.9)
    values = margin_discrepancy(ctx)
    torch.testing.assert_close(values, (margin - distances).relu())
    assert (values > 0).any()
    [gradient] = torch.autograd.grad(values.sum(), student)
    [expected] = torch.autograd.grad((margin.detach() - distances).relu().sum(), student)
    torch.testing.assert_close(gradient, expected)


def test_margins_are_drawn_per_view_and_step_and_clamped():
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


@pytest.mark.integration
def test_discrepancy_separates_a_trained_teacher_and_its_student():
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


def test_the_student_pass_uses_its_options():
    calls = []
    networks = SimpleNamespace(student=lambda *args: calls.append(args), run=lambda images, student: images)
    ctx = disagreeing(randn(2, 10), randn(2, 10), step=7)
    assert student_pass(ctx, networks, bits="w3a3", refresh_every=5)[0] is ctx.images
    [(bits, images, step, refresh_every)] = calls
    assert (bits, step, refresh_every) == ("w3a3", 7, 5) and not images.requires_grad


@given(alpha=st.floats(0.01, 10), probability=st.floats(0, 1), seed=st.integers(0, 1000))
def test_interpolated_images_lie_between_images_of_the_batch(alpha, probability, seed):
    images = randn(5, 3, 4, 4)
    mixed = interpolate(images, torch.Generator().manual_seed(seed), alpha=alpha, probability=probability)
    assert mixed.shape == images.shape and mixed.isfinite().all()
    assert (mixed <= images.amax(0) + 1e-5).all() and (mixed >= images.amin(0) - 1e-5).all()
    assert torch.equal(mixed, interpolate(images, torch.Generator().manual_seed(seed), alpha=alpha, probability=probability))


def test_each_mixed_image_combines_itself_and_one_other_with_beta_weights():
    images = torch.eye(64).view(64, 1, 8, 8)  # the combination can be read from the pixels
    mixed = interpolate(images, torch.Generator().manual_seed(0), probability=1.0).flatten(1)
    weights = mixed.diagonal()
    torch.testing.assert_close(mixed.sum(1), torch.ones(64))
    assert ((mixed > 0).sum(1) <= 2).all()
    assert 0.3 < weights.mean() < 0.7 and len(set(weights.tolist())) > 50
    assert ((weights < 0.1) | (weights > 0.9)).float().mean() > 0.4  # Beta(.4, .4) is U-shaped; uniform weights would give 0.2


def test_images_are_mixed_with_the_given_probability():
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


@pytest.mark.parametrize("alpha", [0.4, 1.0, 3.0])
def test_mixing_weights_have_the_moments_of_the_beta_distribution(alpha):
    images = torch.eye(1024).view(1024, 1, 32, 32)
    mixed = interpolate(images, torch.Generator().manual_seed(0), alpha=alpha, probability=1.0).flatten(1)
    weights = mixed.diagonal()
    variance = 1 / (4 * (2 * alpha + 1))
    assert weights.mean().item() == pytest.approx(0.5, abs=4 * (variance / 1024) ** 0.5)  # four standard errors
    assert weights.var().item() == pytest.approx(variance, rel=0.15)


def test_mixing_does_not_touch_global_random_states():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    mixed = interpolate(randn(5, 3, 4, 4), torch.Generator().manual_seed(0), alpha=1e-3)
    assert mixed.isfinite().all()  # both gamma variates of so small an alpha underflow
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize(("options", "message"), [({"alpha": 0.0}, "alpha"), ({"probability": 1.5}, "probability")])
def test_wrong_interpolations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        interpolate(randn(2, 3, 4, 4), torch.Generator(), **options)
