"""`load(..., dequantize=True)`: what timm builds, with the quantized weights, whatever `prepare` did."""

import pytest
import timm
import torch
from tiny import TINY, make_student_float, make_tiny

import vitdfq
from vitdfq.models import image_size


@pytest.fixture(params=[(kind, rotated) for kind in sorted(TINY) for rotated in (False, True)], ids=str)
def case(request, tmp_path):
    """(kind, images, plain model, the student's float function)."""
    kind, prepared = request.param
    teacher = make_tiny(kind)
    base = vitdfq.prepare(teacher) if prepared else teacher
    images = torch.randn(8, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    student = vitdfq.calibrate(vitdfq.quantize(base), base, images, steps=["observe", "correct_bias"])
    for name, buffer in student.named_buffers():
        if name.endswith("input_shift"):
            buffer.normal_(std=0.1)
    vitdfq.save(student, tmp_path)
    return kind, images, vitdfq.load(tmp_path, dequantize=True), make_student_float(student, base)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def test_its_state_loads_in_timm_and_computes_the_same(case):
    kind, images, plain, student = case
    architecture, arguments = TINY[kind]
    reference = timm.create_model(architecture, num_classes=10, **arguments)
    extra = set(plain.state_dict()) - set(reference.state_dict())
    if kind == "swin_v2":  # no norm stands before its layers, and its keys have no bias: what cannot be held is no key of timm's
        assert extra and {name.rpartition(".")[0].rpartition(".")[2] for name in extra} == {"qkv", "reduction"}
    else:
        reference.load_state_dict(plain.state_dict(), strict=True)
        assert relative(reference.eval()(images), plain(images)) < 1e-5
    # A ViT's LayerNorm drops the mean that quantized weights write into the stream; a rotated one's RMSNorm had seen it.
    exact = kind in ("swin", "levit", "swin_v2") or "prepare" not in student.vitdfq
    assert relative(plain(images), student(images)) < (1e-5 if exact else 0.05)


@torch.no_grad()
def test_it_has_the_quantized_weights(tmp_path):
    teacher = make_tiny("vit")
    student = vitdfq.calibrate(vitdfq.quantize(teacher), teacher, torch.randn(4, 3, 32, 32), steps=["observe"])
    plain = vitdfq.load(vitdfq.save(student, tmp_path), dequantize=True)
    weight = plain.get_submodule("blocks.0.mlp.fc1").weight
    assert max(row.unique().numel() for row in weight) <= 16 and not weight.requires_grad
    assert not torch.equal(weight, teacher.get_submodule("blocks.0.mlp.fc1").weight)
    vitdfq.quantize(plain)  # it is a float model again


@torch.no_grad()
def test_a_bias_that_timm_has_not_moves_into_the_norm(tmp_path):
    swin = make_tiny("swin")
    student = vitdfq.calibrate(vitdfq.quantize(swin), swin, torch.randn(4, 3, 32, 32), steps=["observe"])
    name = "layers.1.downsample"
    student.get_submodule(f"{name}.reduction").bias.normal_()
    plain = vitdfq.load(vitdfq.save(student, tmp_path), dequantize=True)
    assert plain.get_submodule(f"{name}.reduction").bias is None
    moved = plain.get_submodule(f"{name}.norm").bias - swin.get_submodule(f"{name}.norm").bias
    given = plain.get_submodule(f"{name}.reduction").weight @ moved
    torch.testing.assert_close(given, student.get_submodule(f"{name}.reduction").bias, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_bias_that_no_norm_can_take_is_kept(tmp_path):
    arguments = TINY["vit"][1] | {"qkv_bias": False}
    teacher = vitdfq.load_teacher(timm.create_model("vit_tiny_patch16_224", num_classes=10, **arguments), **arguments)
    images = torch.randn(4, 3, 32, 32)
    student = vitdfq.calibrate(vitdfq.quantize(teacher), teacher, images, steps=["observe", "correct_bias"])
    plain = vitdfq.load(vitdfq.save(student, tmp_path), dequantize=True)
    extra = set(plain.state_dict()) - set(teacher.state_dict())
    assert extra == {f"blocks.{index}.attn.qkv.bias" for index in range(3)}
    assert relative(plain(images), make_student_float(student, teacher)(images)) < 1e-5


@torch.no_grad()
def test_a_swin_whose_windows_are_padded(tmp_path):
    arguments = TINY["swin"][1] | {"img_size": 26}
    teacher = vitdfq.load_teacher(timm.create_model("swin_tiny_patch4_window7_224", num_classes=10, **arguments), **arguments)
    prepared, images = vitdfq.prepare(teacher), torch.randn(4, 3, 26, 26)
    student = vitdfq.calibrate(vitdfq.quantize(prepared), prepared, images, steps=["observe", "correct_bias"])
    plain = vitdfq.load(vitdfq.save(student, tmp_path), dequantize=True)
    assert set(plain.state_dict()) == set(teacher.state_dict())
    assert relative(plain(images), make_student_float(student, prepared)(images)) < 1e-5
