"""The multiplications of one call of a torch function, by the shapes of what it reads and writes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.models.watching.watch import Call


def multiplications_of(call: Call) -> int:
    """Return how many multiplications a function takes; 0 for a module, and where nothing depends on the images."""
    if call.name is not None or call.target not in COUNTS or not isinstance(call.output, Tensor) or not call.output.requires_grad:
        return 0
    return COUNTS[call.target](operands_of(call), call.output)


def operands_of(call: Call) -> list[Any]:
    """Return the tensors that a call reads, and the texts, in order; arguments by name come last."""
    return [part for part in (*call.args, *call.kwargs.values()) if isinstance(part, Tensor | str)]


def _matrix(operands: list[Any], output: Tensor) -> int:
    return output.numel() * operands[0].shape[-1]


def _second(operands: list[Any], output: Tensor) -> int:
    return output.numel() * operands[1].shape[-1]


def _weighted(operands: list[Any], output: Tensor) -> int:
    return output.numel() * operands[1][0].numel()


def _transposed(operands: list[Any], output: Tensor) -> int:
    return operands[0].numel() * operands[1][0].numel()


def _fused(operands: list[Any], output: Tensor) -> int:
    query, key = operands[:2]
    return (query.numel() + output.numel()) * key.shape[-2]


def _einsum(operands: list[Any], output: Tensor) -> int:
    equation, *tensors = operands
    sizes: dict[str, int] = {}
    for letters, tensor in zip(equation.replace(" ", "").partition("->")[0].split(","), tensors, strict=True):
        if "..." in letters:
            return output.numel() * max(part.shape[-1] for part in tensors)
        sizes |= dict(zip(letters, tensor.shape, strict=True))
    return math.prod(sizes.values()) if len(tensors) > 1 else 0


REFLECTED = Tensor.__rmatmul__  # x.__rmatmul__(y) is y @ x
MATRIX_PRODUCTS = (torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, REFLECTED)
COUNTS: dict[Any, Callable[[list[Any], Tensor], int]] = {
    **dict.fromkeys((*MATRIX_PRODUCTS, torch.mv), _matrix),
    **dict.fromkeys((REFLECTED, torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _second),
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d), _weighted),
    **dict.fromkeys((F.conv_transpose2d, torch.conv_transpose2d), _transposed),
    F.scaled_dot_product_attention: _fused,
    torch.einsum: _einsum,
}
