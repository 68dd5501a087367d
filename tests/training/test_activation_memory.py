"""Bytes saved for the backward pass, and gradients of a batch in shards, whose size follows from them."""

import torch
from tiny import make_tiny
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.distill import loss_gradients
from vitdfq.quantization import quantize
from vitdfq.runtime.run import Run
from vitdfq.training.activation_memory import bytes_saved_for_backward, training_bytes_per_image
from vitdfq.training.trainable import trainable


def test_a_linear_layer_saves_its_input():
    layer, x = nn.Linear(6, 4), torch.randn(5, 6)
    assert bytes_saved_for_backward(lambda: layer(x), layer) == 4 * 5 * 6


def test_bytes_grow_linearly_with_the_images(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    two, four, eight = (training_bytes_per_image(student, images[:count]) for count in (2, 4, 8))
    assert abs((eight - four) - 2 * (four - two)) < 0.02 * eight
    assert four < 2 * two


def test_smaller_shards_give_the_same_gradients():
    teacher = make_tiny("vit").double()
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    student = calibrate(quantize(teacher, bits="w8a8"), teacher, images, steps=["observe"])
    results = []
    for shard_size in (100, 3):
        with trainable([student]) as parameters:
            loss = loss_gradients(student, teacher, images, parameters.weights, None, shard_size, Run())
            results.append([loss, *(weight.grad for weight in parameters.weights)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-9)
