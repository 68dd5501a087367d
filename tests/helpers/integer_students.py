"""Calibrated students of tiny teachers for tests of `to_integer`."""

import torch
from tiny import make_tiny
from torch import nn

import vitdfq
from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantLinear, QuantMatMul

EIGHT_ASYMMETRIC = {"weight": {"symmetric": False}}
OPTIONS = {  # what is special: arguments of quantize
    "w8a8": {"bits": "w8a8"},
    "w6a6": {"bits": "w6a6"},
    "w4a4": {"bits": "w4a4"},
    "asymmetric weights, per token": {"bits": "w8a8", "activation": {"per_token": True}} | EIGHT_ASYMMETRIC,
    "few bits, per token": {"bits": "w4a4", "activation": {"per_token": True}},
    "prefix tokens apart": {"bits": "w8a8", "activation": {"per_prefix_token": True}} | EIGHT_ASYMMETRIC,
    "per head": {"bits": "w8a8", "activation": {"per_head": True}} | EIGHT_ASYMMETRIC,
    "weights per tensor, twins": {"bits": "w4a6", "policy": "ptq4vit"},
    "dynamic w8a8": {"bits": "w8a8", "policy": "vitdfq_dynamic"},
    "dynamic w4a4": {"bits": "w4a4", "policy": "vitdfq_dynamic"},
    "groups": {"bits": "w4a8", "overrides": {"*qkv*": {"weight": {"group_size": 8}}}},
}


def student_of(kind: str, options: dict, images: torch.Tensor, *, prepare: bool = True, gain: float = 1) -> nn.Module:
    """A student of `make_tiny(kind)`, observed on images (B, 3, H, W), with random shifts. `gain` multiplies queries and keys."""
    teacher = make_tiny(kind)
    for name, part in teacher.named_modules():
        if gain != 1 and name.endswith("attn.qkv"):
            part.weight.data[: 2 * len(part.weight) // 3] *= gain
    prepared = vitdfq.prepare(teacher) if prepare and options.get("policy") != "ptq4vit" else teacher
    student = calibrate(quantize(prepared, **options), prepared, images, steps=["observe"])
    generator = torch.Generator().manual_seed(2)
    for part in student.modules():  # shifts as `center` may set them; these are for no purpose
        if isinstance(part, QuantLinear) and options.get("policy") != "ptq4vit":
            part.input_shift.normal_(std=0.1, generator=generator)
        elif isinstance(part, QuantMatMul) and part.left_shift is not None:
            part.left_shift.normal_(std=0.1, generator=generator)
    return student
