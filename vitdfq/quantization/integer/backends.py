"""Kernels that multiply matrices of int8 on a device. Whether a kernel takes the operands, is exact and fast is tried once."""

import timeit
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

ALIGNED = 8  # CUDA's kernel takes multiples of it, and more than sixteen rows
FEWEST_ROWS = 17
EXACT = {torch.float32: 2**24, torch.float64: 2**53}  # whole numbers below are exact in a float type, and so are their sums
# Times a float product. Some processors have only a reference loop, which takes a thousand times as long; a busy one does not.
TOO_SLOW = 50


def int8_product(a: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    """(M, K) int8 @ (K, N) int8 -> (M, N) int32, by torch._int_mm."""
    if a.device.type != "cuda":
        return torch._int_mm(a, w) if out is None else torch._int_mm(a, w, out=out)
    rows, columns = len(a), w.shape[1]
    a = F.pad(a, (0, -a.shape[1] % ALIGNED, 0, max(0, FEWEST_ROWS - rows)))
    w = F.pad(w, (0, -columns % ALIGNED, 0, -len(w) % ALIGNED))
    return torch._int_mm(a, w)[:rows, :columns]


def fused_pack(w: Tensor) -> Tensor:
    """An int8 weight (N, K) in the order that `fused_product` reads; opaque: it can neither be copied nor saved."""
    return torch.ops.onednn.qlinear_prepack(w, None)


def fused_product(
    a: Tensor, zero: int, factor: float, packed: Tensor, scale: Tensor, zeros: Tensor, bias: Tensor | None
) -> Tensor:
    """factor * (a - zero) @ wᵀ * scale + bias in one pass over the result, by oneDNN: int8 (M, K) -> float32 (M, N).

    Args:
        packed, scale, zeros: the weight w (N, K), scale (N,) float32, zeros (N,) int64.
    """
    unsigned = a.view(torch.uint8) ^ 128  # oneDNN has only a reference loop for signed values
    return torch.ops.onednn.qlinear_pointwise(
        unsigned, factor, zero + 128, packed, scale, zeros, bias, 1.0, 0, torch.float32, "none", [], ""
    )


def float_product(a: Tensor, w: Tensor, largest: int) -> Tensor:
    """a @ w of whole numbers, in the smallest float type that is exact while no sum exceeds `largest`."""
    container = torch.float32 if largest < EXACT[torch.float32] else torch.float64
    return a.to(container) @ w.to(container)


@cache
def fused_works(device: str) -> bool:
    """Whether `fused_product` exists on a device, is exact and not a reference loop."""
    return device == "cpu" and _works(
        lambda a, w: fused_product(a, -3, 1.0, fused_pack(w), torch.ones(len(w)), torch.zeros(len(w), dtype=torch.int64), None),
        -3,
    )


@cache
def int8_works(device: str) -> bool:
    """Whether `int8_product` is exact on a device and not a reference loop."""
    return _works(lambda a, w: int8_product(a, w.t()), 0, device)


def _works(product: Callable[[Tensor, Tensor], Tensor], zero: int, device: str = "cpu") -> bool:
    """Try the extreme values, of which two products saturate a 16-bit sum, and odd sizes; then compare times."""
    generator = torch.Generator().manual_seed(0)
    a = w = torch.empty(0)
    try:
        for rows, inner, columns in ((1, 27, 10), (33, 64, 33), (197, 128, 96)):
            a = torch.randint(0, 2, (rows, inner), generator=generator) * 255 - 128
            w = torch.randint(0, 2, (columns, inner), generator=generator) * 255 - 128
            exact = (a - zero).double() @ w.double().t()
            a, w = a.to(device, torch.int8), w.to(device, torch.int8)
            if not torch.equal(product(a, w).cpu().double(), exact):
                return False
    except (AttributeError, RuntimeError):
        return False
    return _seconds(lambda: product(a, w)) < TOO_SLOW * _seconds(lambda: a.float() @ w.float().t())


def _seconds(function: Callable[[], object]) -> float:
    """The least of five times. By `timeit`: importing torch's timer prints a warning where a CUDA toolkit lies without a GPU."""

    def run_and_wait() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return min(timeit.repeat(run_and_wait, number=1, repeat=5))
