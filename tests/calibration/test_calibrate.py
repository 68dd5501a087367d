"""calibrate(): what it takes, in what state it leaves a student, and what it refuses."""

import torch

from vitdfq.calibration import calibrate
from vitdfq.checkpoint import load, save
from vitdfq.quantization import quantize
from vitdfq.quantization.learning import learning
from vitdfq.quantization.modules import put_weight_on_grid, weighted_modules


def on_grid(module) -> bool:
    rows = module.weight.flatten(1)
    return torch.equal(module.weight_quantizer(rows), rows)


def test_a_loaded_student_calibrated_again_ends_on_its_grids(tiny_vit, images, tmp_path):
    """Once on their grids weights are no longer rounded; a step that trains must round them again, or they stay in float."""
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    again = load(save(student, tmp_path))
    calibrate(again, tiny_vit, images, steps=[{"reconstruct": {"iterations": 3, "lr": 0.5, "guarded": False}}])
    assert all(on_grid(module) for module in weighted_modules(again))
    assert not torch.equal(again.blocks[0].mlp.fc1.weight, student.blocks[0].mlp.fc1.weight)
    assert torch.equal(load(save(again, tmp_path))(images), again(images))


def test_what_learns_is_rounded(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    with learning([student]):
        assert not any(module.weight_on_grid for module in weighted_modules(student))
    for module in weighted_modules(student):
        module.weight.add_(0.3 * module.weight_quantizer.scale.view(-1, *[1] * (module.weight.ndim - 1)))
        put_weight_on_grid(module)
        assert on_grid(module)
