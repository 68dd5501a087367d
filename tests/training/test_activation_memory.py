import torch
from tiny import make_tiny
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.distill import _gradients
from vitdfq.quantization import quantize
from vitdfq.training.activation_memory import bytes_saved_for_backward, training_bytes_per_image
from vitdfq.training.trainable import trainable


def test_what_one_layer_keeps_is_its_input():
    layer, x = nn.Linear(6, 4), torch.randn(5, 6)
    assert bytes_saved_for_backward(lambda: layer(x), layer) == 4 * 5 * 6


def test_each_image_keeps_the_same_beside_the_weights(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    two, four, eight = (training_bytes_per_image(student, images[:count]) for count in (2, 4, 8))
    assert abs((eight - four) - 2 * (four - two)) < 0.02 * eight
    assert four < 2 * two


def test_smaller_shards_give_the_same_gradients():
    teacher = make_tiny("vit").double()
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    student = calibrate(quantize(teacher, bits="w8a8"), teacher, images, steps=["observe"])
    found = []
    for at_once in (100, 3):
        with trainable([student]) as trainables:
            parameters = trainables.weights
            loss = _gradients(student, teacher, images, parameters, None, at_once)
            found.append([loss, *(parameter.grad for parameter in parameters)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-9)
