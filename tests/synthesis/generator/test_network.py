"""The network of the conditional generator."""

import pytest
import torch
from torch import nn

from vitdfq.synthesis import TeacherFacts
from vitdfq.synthesis.generator.network import CODE_SIZE, ConditionalGenerator, estimate_norm_statistics


def make(size=(28, 28), num_conditions=0, num_classes=10):
    low, high = torch.full((1, 3, 1, 1), -1.0), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    facts = TeacherFacts(size, num_classes, [], low, high)
    return ConditionalGenerator(facts, num_conditions, torch.Generator().manual_seed(0))


def some(count, conditions=0):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, CODE_SIZE + conditions, generator=rng), torch.arange(count) % 10


@pytest.mark.parametrize("size", [(28, 28), (30, 46), (224, 224), (96, 70)])
def test_images_have_the_requested_size_and_range(size):
    images = make(size, num_conditions=2)(*some(2, conditions=2))
    assert images.shape == (2, 3, *size)
    assert (images.amin((0, 2, 3)) >= -1).all()
    assert (images.amax((0, 2, 3)) <= torch.tensor([1.0, 2.0, 3.0])).all()


def test_linear_stays_small_for_large_images():
    assert make((224, 224)).linear.weight.numel() < 3e6


def test_untrained_images_depend_on_code_and_class():
    generator = make().eval()
    codes, classes = some(4)
    estimate_norm_statistics(generator.train(), [some(32)])
    images = generator(codes, classes)
    assert (images - generator(codes.flip(0), classes)).abs().mean() > 0.1
    assert (images - generator(codes, classes + 1)).abs().mean() > 0.1


def test_estimated_norm_statistics_are_plain_means():
    generator = make()
    codes, classes = some(32)
    generator(codes + 5, classes)  # other statistics, to be replaced
    estimate_norm_statistics(generator, [(codes[:16], classes[:16]), (codes[16:], classes[16:])])
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    inner = generator.linear(codes).view(-1, *generator.start)
    torch.testing.assert_close(generator.first_norm.norm.running_mean, inner.mean((0, 2, 3)), rtol=0, atol=1e-5)
    assert all(norm.num_batches_tracked == 2 for norm in generator.modules() if isinstance(norm, nn.BatchNorm2d))
