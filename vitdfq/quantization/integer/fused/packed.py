"""A block's numbers in the order and the types that the kernels read."""

from ctypes import Structure, c_float, c_long, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.quantization.integer.codes import MIDDLE, Range
from vitdfq.quantization.integer.fused.form import Attention, BlockForm, Input, Norm, Transform, Weight
from vitdfq.quantization.integer.fused.library import Library
from vitdfq.quantization.quantizers.forms import Octaves, Twin

# The structures of common.h, field by field.


def pointers(*names: str) -> list[tuple[str, type]]:
    return [(name, c_void_p) for name in names]


def longs(*names: str) -> list[tuple[str, type]]:
    return [(name, c_long) for name in names]


def floats(*names: str) -> list[tuple[str, type]]:
    return [(name, c_float) for name in names]


class GridFields(Structure):
    _fields_ = [*pointers("scale", "inverse", "low", "high"), *floats("zero")]


class LayerFields(Structure):
    _fields_ = [
        ("from_", GridFields), *pointers("numbers", "scale", "bias", "correction"), *longs("inner", "outputs"),
    ]  # fmt: skip


class NormFields(Structure):
    _fields_ = [*pointers("gain", "offset"), *longs("center"), *floats("epsilon")]


class TransformFields(Structure):
    _fields_ = [*pointers("signs", "core", "offset"), *longs("cores")]


class AttentionFields(Structure):
    _fields_ = [
        *longs("heads", "dim"), *pointers("multiply", "add", "low", "high", "zero"),
        *pointers("query_zero", "value_zero", "score_scale", "value_scale", "shift"), *longs("octave_steps", "last"),
        *floats("inverse", "soft_scale", "soft_low", "soft_high", "soft_zero", "coarse_step", "split"),
        *longs("renormalize"), *pointers("offset"),
    ]  # fmt: skip


class BlockFields(Structure):
    _fields_ = [
        ("norm1", NormFields), ("norm2", NormFields),
        ("qkv", LayerFields), ("proj", LayerFields), ("fc1", LayerFields), ("fc2", LayerFields),
        ("attention", AttentionFields), ("transform", TransformFields), *longs("prefix"),
    ]  # fmt: skip


class PackedBlock:
    """`fields` of a block form, and the tensors whose addresses they hold."""

    def __init__(self, form: BlockForm, kernels: Library) -> None:
        self.kernels, self.prefix = kernels, form.prefix
        self.kept: list[Tensor] = []
        weights, inputs = dict(form.weights), dict(form.inputs)
        if form.transform is not None:
            order = form.transform.order
            weights["fc1"] = Weight(*(part[order] for part in weights["fc1"]))
            weights["fc2"] = weights["fc2"]._replace(numbers=weights["fc2"].numbers[:, order])
            inputs["fc2"] = inputs["fc2"]._replace(shift=offset(inputs["fc2"], len(order)).neg()[order])
        norms = zip(("norm1", "norm2"), form.norms, ("qkv", "fc1"), strict=True)
        self.fields = BlockFields(
            **{name: self._norm(norm, inputs[reader]) for name, norm, reader in norms},
            **{name: self._layer(weight, inputs[name]) for name, weight in weights.items()},
            attention=self._attention(form.attention, weights["qkv"].bias, inputs["proj"]),
            transform=self._transform(form.transform, inputs["fc2"], len(weights["fc1"].bias)),
            prefix=form.prefix,
        )
        self.widest = max(max(weight.numbers.shape) for weight in weights.values())

    def __call__(self, x: Tensor, at_once: int) -> Tensor:
        """Run the block on x (B, N, C), float32; see `Library.block`."""
        return self.kernels.block(self.fields, x, self.widest, at_once)

    def _address(self, values: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        if values is None:
            return None
        self.kept.append(values.to(dtype).contiguous())
        return self.kept[-1].data_ptr()

    def _grid(self, found: Range) -> GridFields:
        scale, low, high = (values.expand(self.prefix + 1) for values in found)
        addresses = (self._address(values) for values in (scale, 1 / scale, low, high))
        return GridFields(*addresses, self._zero(found))

    def _zero(self, found: Range) -> int:
        """Codes are numbers plus this: not negative where they are bytes."""
        if self.kernels.group == 2:
            return 0
        return -int(found.low.min())

    def _layer(self, weight: Weight, entry: Input) -> LayerFields:
        panel, group, numbers = self.kernels.panel, self.kernels.group, weight.numbers
        packed = F.pad(numbers, (0, 0, 0, -len(numbers) % panel))
        packed = packed.view(-1, panel, packed.shape[1] // group, group).transpose(1, 2)
        correction = self._zero(entry.range) * numbers.sum(1, dtype=torch.int32)
        return LayerFields(
            self._grid(entry.range), self._address(packed, self.kernels.weight_type), self._address(weight.scale),
            self._address(weight.bias), self._address(correction, torch.int32), numbers.shape[1], len(numbers),
        )  # fmt: skip

    def _norm(self, norm: Norm, reader: Input) -> NormFields:
        total = norm.offset + offset(reader, len(norm.offset))
        return NormFields(self._address(norm.gain), self._address(total), norm.center, norm.epsilon)

    def _transform(self, transform: Transform | None, reader: Input, width: int) -> TransformFields:
        total = self._address(offset(reader, width))
        if transform is None:
            return TransformFields(None, None, total, 1)
        return TransformFields(self._address(transform.signs), self._address(transform.core), total, len(transform.core))

    def _attention(self, form: Attention, bias: Tensor, proj: Input) -> AttentionFields:
        width = len(bias) // 3
        dim = width // form.heads

        def channels(values: Tensor) -> Tensor:
            return values.float().repeat_interleave(dim)

        ranges = form.query, form.key, form.value
        zeros = [self._operand_zero(entry, signed=entry is not form.query) for entry in ranges]
        multiply = torch.cat([channels(gain / entry.scale) for gain, entry in zip((form.scale, 1, 1), ranges, strict=True)])
        add, shift = bias * multiply, None
        if form.shift is not None:
            add[:width] -= form.shift.flatten() / channels(form.query.scale)
            shift = form.shift.flatten() * channels(form.key.scale)
        return AttentionFields(
            heads=form.heads, dim=dim, multiply=self._address(multiply), add=self._address(add),
            low=self._address(torch.cat([channels(entry.low) for entry in ranges])),
            high=self._address(torch.cat([channels(entry.high) for entry in ranges])),
            zero=self._address(torch.cat([channels(zero) for zero in zeros])),
            query_zero=self._address(zeros[0], torch.int32), value_zero=self._address(zeros[2], torch.int32),
            score_scale=self._address(form.query.scale * form.key.scale), value_scale=self._address(form.value.scale),
            shift=self._address(shift), renormalize=form.renormalize, offset=self._address(offset(proj, width)),
            **softmax_fields(form.soft),
        )  # fmt: skip

    def _operand_zero(self, entry: Range, *, signed: bool) -> Tensor:
        """What is added to numbers of attention's operands, by head: as little as makes them fit."""
        if self.kernels.group == 2:
            return torch.zeros_like(entry.low)
        if not signed:
            return -entry.low
        return torch.zeros_like(entry.low) if entry.fits_int8 else -entry.low - MIDDLE


def softmax_fields(soft: Range | Octaves | Twin) -> dict[str, Any]:
    """The fields of AttentionFields that describe softmax's grid."""
    if isinstance(soft, Octaves):
        return {
            "octave_steps": soft.steps_per_octave, "last": 2**soft.bits - 1, "inverse": 1 / soft.scale, "soft_scale": soft.scale,
        }  # fmt: skip
    if isinstance(soft, Twin):
        return {
            "inverse": soft.largest, "soft_scale": 1 / soft.largest, "soft_high": soft.steps,
            "coarse_step": soft.coarse_step, "split": soft.boundary,
        }  # fmt: skip
    scale, low, high = (values.item() for values in soft)
    return {"inverse": 1 / scale, "soft_scale": scale, "soft_low": low, "soft_high": high, "soft_zero": -low}


def offset(entry: Input, size: int) -> Tensor:
    """What is added to a layer's input before it is rounded."""
    return torch.zeros(size) if entry.shift is None else -entry.shift
