"""Contracts of every loss; a new entry of LOSSES is included without a change here, unless it needs certain norms (ONLY)."""

import inspect
import re

import pytest
import torch
from contexts import make_context
from tiny import make_tiny

from vitdfq.synthesis import LOSSES, TeacherFacts

KINDS = ("vit", "deit", "swin", "levit", "tokens")
ONLY = {"norm_statistics": ("vit", "deit", "swin", "tokens"), "batch_norm_statistics": ("levit",)}  # models with such norms
GIVE_FEATURES = ("tokens",)
CASES = [
    (name, kind)
    for name, loss in LOSSES.items()
    for kind in ONLY.get(name, KINDS)
    if not (loss.needs_classes and kind in GIVE_FEATURES)
]
FACTS = {kind: TeacherFacts.of(make_tiny(kind)) for kind in KINDS}
ALONE = [(name, kind) for name, kind in CASES if not LOSSES[name].compares(FACTS[kind])]
COMPARING = [(name, kind) for name, kind in CASES if LOSSES[name].compares(FACTS[kind])]
OPTIONS = {
    "mode_consistency": {"rate": 0.9, "draws": 4},  # so that every image of a small model drops some path
    "norm_statistics": {"hinge": 0.0},  # a hinge would hide the value
    "statistics_prior": {"hinge": 0.0},
}


def value_of(name, teacher, images, first=0):
    ctx, (term,) = make_context(teacher, images, {name: OPTIONS.get(name, {})}, first)
    return term.value(ctx)


def some_images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "kind"), CASES)
class TestEveryLoss:
    def test_returns_one_finite_number_per_image(self, name, kind):
        values = value_of(name, make_tiny(kind), some_images())
        assert values.shape == (3,)
        assert values.isfinite().all()

    def test_gradient_is_finite_on_a_flat_image(self, name, kind):
        images = torch.zeros(2, 3, 32, 32, requires_grad=True)
        value_of(name, make_tiny(kind), images).sum().backward()
        assert images.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.needs_classes])
def test_a_loss_that_needs_classes_reads_logits(name):
    """Otherwise `needs_classes` must not be set."""
    with pytest.raises(ValueError, match="a loss reads logits, and the teacher gives features"):
        value_of(name, make_tiny("tokens"), some_images())


@pytest.mark.parametrize(("name", "kind"), ALONE)
class TestEveryLossOfSingleImages:
    def test_gradient_reaches_only_its_image(self, name, kind):
        images = some_images().requires_grad_()
        value_of(name, make_tiny(kind), images)[1].backward()
        reached = images.grad.flatten(1).norm(dim=1)
        assert reached[1] > 0
        assert reached[0] == reached[2] == 0

    def test_image_does_not_depend_on_its_batch(self, name, kind):
        teacher, images = make_tiny(kind), some_images()
        together = value_of(name, teacher, images)
        alone = torch.cat([value_of(name, teacher, images[i : i + 1], first=i) for i in range(3)])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)
        assert len(set(together.tolist())) == 3  # not a constant


@pytest.mark.parametrize(("name", "kind"), COMPARING)
class TestEveryLossThatComparesImages:
    def test_gradient_reaches_the_images(self, name, kind):
        images = some_images().requires_grad_()
        value_of(name, make_tiny(kind), images).sum().backward()
        assert (images.grad.flatten(1).norm(dim=1) > 0).any()

    def test_image_depends_on_its_batch(self, name, kind):
        """Otherwise `compares` must not be set."""
        teacher, images = make_tiny(kind), some_images()
        together = value_of(name, teacher, images)
        alone = torch.cat([value_of(name, teacher, images[i : i + 1], first=i) for i in range(3)])
        assert (alone - together).abs().max() > 1e-4 * together.abs().max()

    def test_a_single_image_has_a_finite_value_and_gradient(self, name, kind):
        image = some_images(1).requires_grad_()
        value = value_of(name, make_tiny(kind), image)
        value.sum().backward()
        assert value.shape == (1,) and value.isfinite().all() and image.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
class TestEveryDocstring:
    def test_states_the_shape(self, name):
        assert "(B,)" in LOSSES[name].function.__doc__

    def test_names_a_source(self, name):
        assert re.search(r"arXiv \d{4}\.\d{5}|\b10\.\d{4,}/\S+|[Tt]his library's own", LOSSES[name].function.__doc__)

    def test_describes_every_option(self, name):
        for option in list(inspect.signature(LOSSES[name].function).parameters)[1:]:
            assert f"        {option}: " in LOSSES[name].function.__doc__
