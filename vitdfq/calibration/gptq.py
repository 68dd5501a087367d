"""GPTQ: round a weight column by column, and let the columns still to come make up for each error."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import Unit, units
from vitdfq.models.record import hooked
from vitdfq.quantization.functional import fake_quantize
from vitdfq.quantization.modules import QuantLinear, restore_state, state_of
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine
from vitdfq.runtime import distributed, progress
from vitdfq.runtime.partial_results import PartialResults

COLUMNS_AT_ONCE = 128


@torch.no_grad()
def gptq(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    num_images: int = 128,
    damping: float = 0.01,
    batch_size: int = 32,
    shelf: PartialResults | None = None,
) -> None:
    """Move the weights of every linear layer so that, once rounded, the layer's output on its quantized inputs changes least.

    GPTQ (arXiv 2210.17323), in order of execution: a layer sees its inputs as the layers before it leave them, quantized. The
    weight's scales are fitted first, on the same second moments of the inputs. Needs no labels and no gradients. Weights without
    an affine grid stay as `observe` fitted them.

    In host memory is one stream (see `streams.py`) of this process's share of the images, on the device one batch.

    Args:
        student: weights and their scales are changed in place; the other quantizers must have been fitted.
        teacher: not used.
        images: (N, 3, H, W).
        num_images: at most so many of the images are used.
        damping: added to the diagonal of the second moments, as a share of its mean.
        batch_size: images in one forward pass, each in one of the processes; bounds memory.
        shelf: keeps finished units.

    Raises:
        ValueError: damping is not positive, or the inputs of a layer are not finite because `observe` has not run.
    """
    if not damping > 0:
        raise ValueError(f"gptq: damping is {damping}; it must be positive")
    names = {part: name for name, part in student.named_modules()}
    streams = list(distributed.share(images[:num_images].split(batch_size)))
    chain, shelf, device = units(student), shelf or PartialResults(), device_of(student)
    with progress.bar("gptq", total=len(chain)) as bar:
        for unit in chain:
            part = shelf.get(unit.name)
            if part is None:
                for linear in _quantized_linears(unit):
                    moments = _second_moments(unit, linear, streams)
                    if not moments.isfinite().all():
                        raise ValueError(f"gptq: the inputs of {names[linear]} are not finite; put gptq after observe")
                    fit_and_round(linear, moments, damping)
                shelf.put(unit.name, state_of(unit.modules))
                bar.advance()
            else:
                restore_state(unit.modules, part)
                bar.skip(1)
            for place, stream in enumerate(streams):  # one by one: no second stream beside the first
                streams[place] = unit.forward(stream.to(device)).cpu()


def round_columns(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> Tensor:
    """Return float weights (R, M) that `quantizer` rounds to GPTQ's choice.

    Args:
        weight: (R, M).
        moments: (M, M) second moments of the inputs, positive definite.
        quantizer: of the rows, fitted, with an affine grid: a scale for all, per row, or per group of a row.
    """
    grid = quantizer.affine
    assert grid is not None
    scales, zero_points = (_per_value(state, grid, weight) for state in (grid.scale, grid.zero_point))
    order = moments.diagonal().argsort(descending=True)  # the columns that matter most are rounded while all others can help
    factor = _upper_factor_of_inverse(moments[order][:, order])
    remaining, scales, zero_points = weight.double()[:, order], scales[:, order], zero_points[:, order]
    before_rounding = torch.empty_like(remaining)
    for start in range(0, remaining.shape[1], COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, remaining.shape[1])
        block, local = remaining[:, start:stop].clone(), factor[start:stop, start:stop]
        errors = torch.empty_like(block)
        for j in range(stop - start):
            k, column = start + j, block[:, j]
            before_rounding[:, k] = column
            rounded = fake_quantize(column, scales[:, k], zero_points[:, k], grid.bits)
            errors[:, j] = (column - rounded) / local[j, j]
            block[:, j + 1 :] -= errors[:, j, None] * local[j, j + 1 :]
        remaining[:, stop:] -= errors @ factor[start:stop, stop:]
    result = torch.empty_like(before_rounding)
    result[:, order] = before_rounding
    return result.to(weight.dtype)


def output_error(change: Tensor, moments: Tensor) -> Tensor:
    """Mean squared change of each output (R,) when the weight changes by `change` (R, M)."""
    return ((change @ moments) * change).sum(1)


def round_rows(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> Tensor:
    """`round_columns`, except for rows that it makes worse than rounding to the nearest: clipped values can add up."""
    moved = round_columns(weight, moments, quantizer)
    better = output_error(quantizer(moved) - weight, moments) < output_error(quantizer(weight) - weight, moments)
    return torch.where(better[:, None], moved, weight)


def fit_and_round(linear: QuantLinear, moments: Tensor, damping: float) -> None:
    damped = moments + damping * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moments), device=moments.device)
    quantizer: Any = linear.weight_quantizer
    quantizer.fit(linear.weight, **({"gram": damped} if "gram" in quantizer.measures else {}))
    linear.weight.copy_(round_rows(linear.weight, damped, quantizer))


def _per_value(state: Tensor, grid: Affine, weight: Tensor) -> Tensor:
    """A scale or zero point for every value of the weight (R, M), float64."""
    if grid.group_size:
        state = state.repeat_interleave(grid.group_size, 1)
    return state.double().expand_as(weight)


def _quantized_linears(unit: Unit) -> Iterator[QuantLinear]:
    for owner in unit.modules:
        for part in owner.modules():
            if isinstance(part, QuantLinear) and part.weight_quantizer.affine is not None:
                yield part


class _Seen(Exception):  # noqa: N818 - nothing went wrong
    """Ends a forward pass: what it was run for has happened."""


def _second_moments(unit: Unit, linear: QuantLinear, streams: list[Tensor]) -> Tensor:
    """E[x xᵀ] (in, in) of the quantized, shifted inputs of `linear` over all tokens of all processes.

    Batches are summed in float64, where the order, and so who has which, does not show.
    """
    device = linear.weight.device
    total = torch.zeros(linear.in_features, linear.in_features, dtype=torch.float64, device=device)
    tokens = torch.zeros((), dtype=torch.long, device=device)

    def collect(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        rows = output.flatten(0, -2)
        total.add_(rows.T @ rows)
        tokens.add_(len(rows))
        raise _Seen

    with hooked([linear.input_quantizer.register_forward_hook(collect)]):
        for stream in streams:
            with suppress(_Seen):
                unit.forward(stream.to(device))
    return (distributed.summed(total) / distributed.summed(tokens).clamp(min=1)).to(linear.weight.dtype)


def _upper_factor_of_inverse(moments: Tensor) -> Tensor:
    """Upper triangular U with Uᵀ U = moments⁻¹, float64."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments.double()))
    return torch.linalg.cholesky(inverse, upper=True)
