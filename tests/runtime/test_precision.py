"""In which type products are computed where nobody says."""

import pytest
import torch

from vitdfq.calibration import calibrate
from vitdfq.calibration.distill import DistillOptions, distill
from vitdfq.quantization import quantize
from vitdfq.runtime.precision import PRECISIONS, fastest_precision

FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def pretend(monkeypatch, *present: str) -> None:
    for flag in FLAGS:
        monkeypatch.setattr(torch.cpu, flag, lambda flag=flag: flag in present)


@pytest.mark.parametrize(("present", "expected"), [((), "float32"), (FLAGS[:1], "bfloat16"), (FLAGS[1:], "bfloat16")])
def test_a_cpu_multiplies_what_it_has_instructions_for(monkeypatch, present, expected):
    pretend(monkeypatch, *present)
    assert fastest_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize("emulated", [False, True])
def test_a_gpu_that_only_emulates_bfloat16_does_not_count(monkeypatch, emulated):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or not emulated)
    assert fastest_precision(torch.device("cuda")) == ("float32" if emulated else "bfloat16")


def test_other_devices_are_left_alone():
    assert fastest_precision(torch.device("meta")) == "float32"


@pytest.mark.parametrize("present", [(), FLAGS])
@pytest.mark.parametrize("asked", [None, *PRECISIONS])
def test_distill_takes_what_was_asked_for_else_the_faster(monkeypatch, tiny_vit, images, present, asked):
    pretend(monkeypatch, *present)
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    seen = set()
    tiny_vit.blocks[0].attn.qkv.register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype) if torch.is_autocast_enabled("cpu") else None
    )
    distill(student, tiny_vit, images, DistillOptions(iterations=1, precision=asked))
    expected = asked or ("bfloat16" if present else "float32")
    assert seen == ({torch.bfloat16} if expected == "bfloat16" else set())


@pytest.mark.parametrize("asked", ["", "half"])
def test_distill_refuses_what_is_no_precision(tiny_vit, images, asked):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    with pytest.raises(ValueError, match="precision"):
        distill(student, tiny_vit, images, DistillOptions(iterations=1, precision=asked))
