"""Image parametrizations: their images stay in range, depend on the seed, and can be optimized."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.synthesis import METHODS, TeacherFacts, synthesize
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS, Decoder, Pixels
from vitdfq.synthesis.procedural import PROCEDURAL

FACTS = TeacherFacts((28, 40), 10, [], torch.tensor([-2.0, -1.5, -1.0]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.5))


def make_parametrization(name, batch=range(3), seed=0, facts=FACTS):
    return PARAMETRIZATIONS[name]([PROCEDURAL["noise"](index, seed, facts) for index in batch], batch, seed, facts)


def images_of(*args, **kwargs):
    return torch.stack(make_parametrization(*args, **kwargs).images()).detach()


def optimize(parametrization, loss, steps, lr=0.2):
    """Take steps of Adam on loss(images); return its values."""
    optimizer = torch.optim.Adam(parametrization.groups(lr), betas=(0.5, 0.9))
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(torch.stack(parametrization.images()))
        value.backward()
        optimizer.step()
        parametrization.project()
        values.append(value.item())
    return values


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
class TestEveryParametrization:
    def test_images_have_the_teachers_size_and_range_before_and_after_steps(self, name):
        parametrization = make_parametrization(name)
        optimize(parametrization, lambda images: -images.square().sum(), 5, lr=5.0)  # towards the limits of the range
        for images in (images_of(name), torch.stack(parametrization.images())):
            assert images.shape == (3, 3, 28, 40)
            assert (images >= FACTS.low - 1e-5).all() and (images <= FACTS.high + 1e-5).all()

    def test_images_depend_on_seed_and_indices_only(self, name):
        state = torch.get_rng_state()
        images = images_of(name)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(images, images_of(name))
        assert (images - images_of(name, seed=1)).abs().mean() > 0.1
        assert (images - images_of(name, batch=range(3, 6))).abs().mean() > 0.1

    def test_images_of_a_batch_differ(self, name):
        images = images_of(name)
        assert min((images[i] - images[j]).abs().mean().item() for i in range(3) for j in range(i)) > 0.1

    def test_a_loss_falls(self, name):
        rows, columns = torch.linspace(-1, 1, 28)[:, None], torch.linspace(-1, 1, 40)
        goal = torch.stack([rows * columns, rows + 0 * columns, columns + 0 * rows])[:, None].expand(3, 3, 28, 40)
        parametrization = make_parametrization(name)
        values = optimize(parametrization, lambda images: (images - goal).square().mean(), 60)
        assert values[-1] < 0.2 * values[0]
        images = torch.stack(parametrization.images())
        assert (images[0] - images[1]).abs().mean() > 0.3  # each approaches its goal


def test_pixels_use_the_given_start_and_the_decoder_does_not():
    starts = torch.stack([PROCEDURAL["noise"](index, 0, FACTS) for index in range(3)])
    assert torch.equal(images_of("pixels"), starts)
    assert (images_of("decoder") - starts).abs().mean() > 0.1


def test_images_without_gradient_stay_with_pixels_and_move_with_a_decoder():
    """An image without crops takes no part in their step; the decoder's images move together."""
    for name, alone in (("pixels", True), ("decoder", False)):
        parametrization = make_parametrization(name)
        before = torch.stack(parametrization.images()).detach().clone()
        optimize(parametrization, lambda images: images[1].square().sum(), 2)
        moved = (torch.stack(parametrization.images()) - before).abs().flatten(1).amax(1) > 1e-6
        assert moved.tolist() == ([False, True, False] if alone else [True, True, True])


def test_learning_rates_are_relative_to_that_of_pixels():
    assert [group["lr"] for group in make_parametrization("pixels").groups(0.2)] == [0.2]
    assert [group["lr"] for group in make_parametrization("decoder").groups(0.2)] == pytest.approx([0.001])
    assert isinstance(make_parametrization("pixels"), Pixels) and isinstance(make_parametrization("decoder"), Decoder)


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_decoder_images_are_smoother_than_pixels(kind):
    teacher = make_tiny(kind)
    decoded, again, pixels = (
        synthesize(teacher, method="psaq", num_images=2, steps=4, parametrization=parametrization)
        for parametrization in ("decoder", "decoder", "pixels")
    )
    assert torch.equal(decoded, again)

    def roughness(images):
        return (images[..., 1:] - images[..., :-1]).abs().mean() / images.std()

    assert roughness(decoded) < 0.7 * roughness(pixels)  # the deep image prior
    assert METHODS["gznq"].parametrization == "decoder"
