"""A block's numbers in the order and the types that the kernels read."""

import ctypes
from ctypes import c_float, c_long, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.quantization.integer.codes import MIDDLE, Range
from vitdfq.quantization.integer.fused.form import Attention, BlockForm, Input, Weight
from vitdfq.quantization.integer.fused.library import Library
from vitdfq.quantization.quantizers.forms import Octaves


class GridArguments(ctypes.Structure):
    """`grid` of common.h."""

    _fields_ = [("inverse", c_void_p), ("low", c_void_p), ("high", c_void_p), ("zero", c_float)]


class AttentionArguments(ctypes.Structure):
    """`attention_form` of attention.c."""

    _fields_ = [
        *((name, c_long) for name in ("tokens", "prefix", "heads", "dim")),
        *((name, c_void_p) for name in ("factor", "multiply", "add", "low", "high", "zero")),
        *((name, c_void_p) for name in ("query_zero", "value_zero", "score_scale", "value_scale", "shift")),
        *((name, c_long) for name in ("octave_steps", "last")),
        *((name, c_float) for name in ("inverse", "soft_scale", "soft_low", "soft_high", "soft_zero")),
        ("renormalize", c_long),
        ("offset", c_void_p),
        ("to", GridArguments),
    ]


class PackedInput(NamedTuple):
    """A layer's grid, an entry for each kind of token; `factor`, its scale, multiplies the layer's product."""

    inverse: Tensor
    low: Tensor
    high: Tensor
    factor: Tensor
    zero: int  # of the codes

    def arguments(self) -> GridArguments:
        """The grid; valid while this object is."""
        return GridArguments(self.inverse.data_ptr(), self.low.data_ptr(), self.high.data_ptr(), self.zero)


class PackedWeight(NamedTuple):
    """numbers (out, in) in panels of outputs and groups of inputs, and what `linear` subtracts from the product."""

    numbers: Tensor
    scale: Tensor
    correction: Tensor
    bias: Tensor


def pack_input(entry: Input, prefix: int, kernels: Library) -> PackedInput:
    scale, low, high = (values.expand(prefix + 1).float().contiguous() for values in entry.range)
    if kernels.group == 2:
        zero = 0
    else:
        zero = MIDDLE if entry.range.fits_int8 else -int(low[0])
    return PackedInput(1 / scale, low, high, scale, zero)


def pack_weight(weight: Weight, zero: int, kernels: Library) -> PackedWeight:
    panel, group = kernels.panel, kernels.group
    numbers = F.pad(weight.numbers, (0, 0, 0, -len(weight.numbers) % panel)).to(kernels.weight_type)
    numbers = numbers.view(-1, panel, numbers.shape[1] // group, group).transpose(1, 2).contiguous()
    correction = zero * weight.numbers.sum(1, dtype=torch.int32)
    return PackedWeight(numbers, weight.scale.contiguous(), correction, weight.bias.contiguous())


def pack_attention(
    form: Attention, qkv: PackedInput, bias: Tensor, proj: Input, to: PackedInput, kernels: Library
) -> tuple[AttentionArguments, list[Tensor]]:
    """Arguments for any number of tokens (it is to be set), and the tensors whose addresses they hold."""
    dim = len(bias) // (3 * form.heads)

    def channels(values: Tensor) -> Tensor:
        return values.float().repeat_interleave(dim)

    ranges = form.query, form.key, form.value
    zeros = [_zero(form.query, kernels, signed=False), *(_zero(entry, kernels, signed=True) for entry in ranges[1:])]
    gains = torch.cat([channels(form.scale / form.query.scale), *(channels(1 / entry.scale) for entry in ranges[1:])])
    add = bias * gains
    shift = None
    if form.shift is not None:
        add[: len(bias) // 3] -= form.shift.flatten() / channels(form.query.scale)
        shift = form.shift.flatten() * channels(form.key.scale)
    kept: dict[str, Tensor | None] = {
        "factor": qkv.factor,
        "multiply": gains,
        "add": add,
        "low": torch.cat([channels(entry.low) for entry in ranges]),
        "high": torch.cat([channels(entry.high) for entry in ranges]),
        "zero": torch.cat([channels(zero) for zero in zeros]),
        "query_zero": zeros[0].to(torch.int32),
        "value_zero": zeros[2].to(torch.int32),
        "score_scale": (form.query.scale * form.key.scale).contiguous(),
        "value_scale": form.value.scale.contiguous(),
        "shift": shift,
        "offset": _offset(proj, len(bias) // 3),
    }
    addresses: dict[str, Any] = {name: None if tensor is None else tensor.data_ptr() for name, tensor in kept.items()}
    arguments = AttentionArguments(
        prefix=len(qkv.factor) - 1, heads=form.heads, dim=dim, renormalize=form.renormalize, to=to.arguments(), **addresses
    )
    _set_softmax(arguments, form.soft)
    return arguments, [tensor for tensor in kept.values() if tensor is not None] + [qkv.factor, *to[:3]]


def _set_softmax(arguments: AttentionArguments, soft: Range | Octaves) -> None:
    if isinstance(soft, Octaves):
        arguments.octave_steps, arguments.last = soft.steps_per_octave, 2**soft.bits - 1
        arguments.inverse, arguments.soft_scale = 1 / soft.scale, soft.scale
        return
    scale, low, high = (values.item() for values in soft)
    arguments.octave_steps, arguments.inverse, arguments.soft_scale = 0, 1 / scale, scale
    arguments.soft_low, arguments.soft_high, arguments.soft_zero = low, high, -low


def _zero(entry: Range, kernels: Library, *, signed: bool) -> Tensor:
    """What is added to numbers of attention's operands to give their codes: as little as makes them fit."""
    if kernels.group == 2:
        return torch.zeros_like(entry.low)
    if not signed:
        return -entry.low
    return torch.zeros_like(entry.low) if entry.fits_int8 else -entry.low - MIDDLE


def _offset(entry: Input, size: int) -> Tensor:
    return torch.zeros(size) if entry.shift is None else -entry.shift


class PackedBlock:
    """All arguments of the kernels for one block."""

    def __init__(self, form: BlockForm, kernels: Library) -> None:
        self.inputs = {name: pack_input(entry, form.prefix, kernels) for name, entry in form.inputs.items()}
        self.grids = {name: entry.arguments() for name, entry in self.inputs.items()}
        weights, down = dict(form.weights), form.inputs["fc2"]
        self.signs = self.core = None
        if form.transform is not None:
            order, self.signs, core = form.transform
            self.core = core.contiguous()
            weights["fc1"] = Weight(*(part[order] for part in weights["fc1"]))
            weights["fc2"] = weights["fc2"]._replace(numbers=weights["fc2"].numbers[:, order])
            down = down._replace(shift=None if down.shift is None else down.shift[order])
        self.weights = {name: pack_weight(weight, self.inputs[name].zero, kernels) for name, weight in weights.items()}
        self.gains = [norm.gain.contiguous() for norm in form.norms]
        readers = form.inputs["qkv"], form.inputs["fc1"]
        self.offsets = [
            (norm.offset + _offset(entry, len(norm.offset))).contiguous()
            for norm, entry in zip(form.norms, readers, strict=True)
        ]
        self.norms = form.norms
        self.hidden_offset = _offset(down, weights["fc2"].numbers.shape[1]).contiguous()
        self.attention, self.kept = pack_attention(
            form.attention, self.inputs["qkv"], self.weights["qkv"].bias, form.inputs["proj"], self.inputs["proj"], kernels
        )
