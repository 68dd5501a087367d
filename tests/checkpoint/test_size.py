"""What a checkpoint weighs: hardly more than the numbers it must hold."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import vitdfq
from vitdfq.checkpoint.state_dict import packable
from vitdfq.common.errors import InputError


def must_hold(student) -> float:
    """Bytes of packed codes and zero points, without any padding, and of every other number as it is; zeros cost nothing."""
    bits, counted = 0, set()
    for name, module, grid in packable(student):
        bits += module.weight.numel() * grid.bits
        bits += 0 if grid.symmetric else grid.zero_point.numel() * grid.bits
        counted |= {f"{name}.weight", f"{name}.weight_quantizer.zero_point"}
    rest = [value for name, value in student.state_dict().items() if name not in counted and value.any()]
    return bits / 8 + sum(value.nbytes for value in rest)


@pytest.mark.integration
@pytest.mark.parametrize(("bits", "shift"), [("w4a4", 0.0), ("w4a4", 0.1), ("w8a8", 0.0)])
@pytest.mark.parametrize("kind", ["vit", "deit", "swin"])
def test_three_percent(kind, bits, shift, tmp_path):
    teacher = vitdfq.prepare(vitdfq.load_teacher(f"zoo:{kind}"))
    images = torch.randn(2, *teacher.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    student = vitdfq.calibrate(vitdfq.quantize(teacher, bits=bits), teacher, images, steps=["observe"])
    for name, buffer in student.named_buffers():
        if name.endswith("_shift"):  # as if `center` had moved every mean
            buffer.fill_(shift)
    file = vitdfq.save(student, tmp_path) / "model.safetensors"
    assert 1 < file.stat().st_size / must_hold(student) < 1.03


def test_zero_shifts_are_not_written(tiny_vit, images, tmp_path):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    student.blocks[0].mlp.fc1.input_shift.fill_(0.5)
    tensors = load_file(vitdfq.save(student, tmp_path) / "model.safetensors")
    assert [name for name in tensors if name.endswith("shift")] == ["blocks.0.mlp.fc1.input_shift"]
    assert torch.equal(vitdfq.load(tmp_path)(images), student(images))


def test_a_shift_that_got_lost_is_missed(tiny_vit, images, tmp_path):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    student.blocks[0].mlp.fc1.input_shift.fill_(0.5)
    file = vitdfq.save(student, tmp_path) / "model.safetensors"
    tensors = load_file(file)
    del tensors["blocks.0.mlp.fc1.input_shift"]
    save_file(tensors, file)
    with pytest.raises(InputError, match="16 shifts are left out, 15 were zero"):
        vitdfq.load(tmp_path)
