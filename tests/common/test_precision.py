"""The data type of matrix products, and the default that fits the hardware."""

import pytest
import torch

from vitdfq.calibration import calibrate
from vitdfq.calibration.distill import DistillOptions, distill
from vitdfq.common.precision import PRECISIONS, fastest_precision
from vitdfq.quantization import quantize

FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def pretend(monkeypatch, *present: str) -> None:
    """Let torch report a CPU with these instruction sets only."""
    for flag in FLAGS:
        monkeypatch.setattr(torch.cpu, flag, lambda flag=flag: flag in present)


@pytest.mark.parametrize(("present", "expected"), [((), "float32"), (FLAGS[:1], "bfloat16"), (FLAGS[1:], "bfloat16")])
def test_a_cpu_with_bfloat16_instructions_uses_them(monkeypatch, present, expected):
    pretend(monkeypatch, *present)
    assert fastest_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize("emulated", [False, True])
def test_a_gpu_that_only_emulates_bfloat16_uses_float32(monkeypatch, emulated):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or not emulated)
    assert fastest_precision(torch.device("cuda")) == ("float32" if emulated else "bfloat16")


def test_other_devices_use_float32():
    assert fastest_precision(torch.device("meta")) == "float32"


@pytest.mark.parametrize("present", [(), FLAGS])
@pytest.mark.parametrize("precision", [None, *PRECISIONS])
def test_distill_uses_the_given_precision_else_the_fastest(monkeypatch, tiny_vit, images, present, precision):
    pretend(monkeypatch, *present)
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    dtypes = set()
    tiny_vit.blocks[0].attn.qkv.register_forward_hook(
        lambda module, inputs, output: dtypes.add(output.dtype) if torch.is_autocast_enabled("cpu") else None
    )
    distill(student, tiny_vit, images, DistillOptions(iterations=1, precision=precision))
    expected = precision or ("bfloat16" if present else "float32")
    assert dtypes == ({torch.bfloat16} if expected == "bfloat16" else set())


@pytest.mark.parametrize("precision", ["", "half"])
def test_distill_refuses_an_unknown_precision(tiny_vit, images, precision):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    with pytest.raises(ValueError, match="precision"):
        distill(student, tiny_vit, images, DistillOptions(iterations=1, precision=precision))
