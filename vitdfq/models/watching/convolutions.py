"""Convolutions that were watched computing their weight or their padding at every pass, as plain ones.

Weight standardization (arXiv 1903.10520) depends on the weight alone, TensorFlow's "same" padding on the size of the image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vitdfq.models.sites import PaddedConv2d, is_layer
from vitdfq.models.watching.watch import Call

CONVOLUTIONS = (F.conv2d, torch.conv2d)
PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def computes_layer(call: Call) -> bool:
    """Return whether a subclass of Conv2d has a forward that convolves once, and only pads before that."""
    if call.name is None or not isinstance(call.target, nn.Conv2d) or is_layer(call.target):
        return False
    of_images = [inner for inner in call.inner if isinstance(inner.output, Tensor) and inner.output.requires_grad]
    return bool(of_images) and of_images[-1].target in CONVOLUTIONS and all(inner.target is F.pad for inner in of_images[:-1])


def computes_weight(call: Call) -> bool:
    """Return whether such a module multiplies with another weight than its parameter."""
    return any(
        _arguments(inner.args, inner.kwargs)["weight"] is not call.target.weight
        for inner in call.inner
        if inner.target in CONVOLUTIONS
    )


def make_plain(part: nn.Conv2d, calls: Sequence[Call]) -> str | None:
    """Make such a module a plain convolution in place, with the weight that it computes; return why it cannot be one, or None."""
    seen = [_geometry(call) for call in calls]
    if any(geometry is None or geometry != seen[0] for geometry in seen) or seen[0] is None:
        return "its padding differs between calls, or is no zeros"
    edges, (stride, padding, dilation, groups) = seen[0]
    with torch.no_grad(), _Catch() as catch:
        part(torch.zeros(calls[0].args[0].shape).to(part.weight))
    weight, bias = catch.given["weight"], catch.given.get("bias")
    if bias is not part.bias:
        return "it computes its bias"
    plain: Any = part
    plain.weight = nn.Parameter(weight.detach().clone(), requires_grad=part.weight.requires_grad)
    plain.stride, plain.padding, plain.dilation, plain.groups = _pair(stride), _pair(padding), _pair(dilation), groups
    left, right, top, bottom = edges
    plain.__class__ = nn.Conv2d
    if (left, top) == (right, bottom) and plain.padding == (0, 0):
        plain.padding = (top, left)
    elif any(edges):
        plain.__class__, plain.edges = PaddedConv2d, edges
    return None


def _geometry(call: Call) -> tuple[tuple[int, ...], tuple[Any, ...]] | None:
    """The zeros on the left, right, top and bottom, then stride, padding, dilation and groups; None for another padding."""
    edges = (0, 0, 0, 0)
    for inner in call.inner:
        if inner.target is F.pad:
            given = dict(zip(("input", "pad", "mode", "value"), inner.args, strict=False)) | dict(inner.kwargs)
            if given.get("mode", "constant") != "constant" or given.get("value") not in (None, 0, 0.0) or len(given["pad"]) != 4:
                return None
            left, right, top, bottom = (a + b for a, b in zip(edges, given["pad"], strict=True))
            edges = (left, right, top, bottom)
    last = _arguments(call.inner[-1].args, call.inner[-1].kwargs) if call.inner[-1].target in CONVOLUTIONS else None
    return None if last is None else (edges, tuple(last[key] for key in PARAMETERS[3:]))


def _arguments(args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return defaults | dict(zip(PARAMETERS, args, strict=False)) | dict(kwargs)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


class _Catch(TorchFunctionMode):
    """Keeps the arguments of the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONVOLUTIONS:
            self.given = _arguments(args, kwargs or {})
        return func(*args, **(kwargs or {}))
