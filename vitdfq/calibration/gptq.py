"""GPTQ: round a weight matrix column by column, and adjust the remaining columns to compensate for each error."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.common.options import check_counts
from vitdfq.models import Unit, units
from vitdfq.models.record import hooked
from vitdfq.quantization.functional import fake_quantize
from vitdfq.quantization.modules import QuantConv2d, QuantWeighted, restore_state, state_of
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine
from vitdfq.runtime.run import Run

COLUMNS_AT_ONCE = 128


@dataclass(frozen=True)
class GptqOptions:
    """Options of `gptq`.

    Attributes:
        num_images: the number of images used, from the first.
        damping: added to the diagonal of the second moments, as a share of its mean.
        batch_size: images in one forward pass; bounds memory. Batches are shared over the processes.

    Raises:
        ValueError: damping is not positive.
    """

    num_images: int = 128
    damping: float = 0.01
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "num_images", "batch_size")
        if not self.damping > 0:
            raise ValueError(f"damping is {self.damping}; it must be positive")


@torch.no_grad()
def gptq(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: GptqOptions | None = None, *, run: Run | None = None
) -> None:
    """Change the weights of every linear layer and convolution so that their rounding changes the layer's output least.

    GPTQ (arXiv 2210.17323), in order of execution: the inputs of a layer contain the quantization errors of all layers before
    it. The scales of the weight are fitted first, on the same second moments of the inputs. It needs no labels and no gradients.
    A convolution is a linear layer of its patches: the patch embedding gains most, as pixels of a patch are much alike.
    Weights without an affine grid, and those of grouped convolutions, stay as `observe` fitted them.

    Host memory holds one copy of the cached activations (`cached_activations.py`) of this process's share of the images; the
    device holds one batch.

    Args:
        student: weights and their scales are changed in place; the other quantizers must be fitted.
        teacher: not used.
        images: (N, 3, H, W).
        options: see `GptqOptions`.
        run: keeps finished units, shares batches over the processes.

    Raises:
        ValueError: the inputs of a layer are not finite because `observe` has not run.
    """
    options, run = options or GptqOptions(), run or Run()
    names = {part: name for name, part in student.named_modules()}
    batches = list(run.share(images[: options.num_images].split(options.batch_size)))
    chain, device = units(student), device_of(student)
    with run.progress("gptq", total=len(chain)) as bar:
        for unit in chain:
            state = run.resume(unit.name)
            if state is None:
                for layer in _rounded_layers(unit):
                    moments = _second_moments(unit, layer, batches, run)
                    if not moments.isfinite().all():
                        raise ValueError(f"gptq: the inputs of {names[layer]} are not finite; put gptq after observe")
                    fit_and_round(layer, moments, options.damping)
                run.checkpoint(unit.name, state_of(unit.modules))
                bar.advance()
            else:
                restore_state(unit.modules, state)
                bar.skip(1)
            for index, batch in enumerate(batches):  # one by one, so that memory holds one copy
                batches[index] = unit.forward(batch.to(device)).cpu()


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
    order = moments.diagonal().argsort(descending=True)  # important columns first, while all others can still compensate
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
    """Mean squared change of each output (R,) if the weight changes by `change` (R, M)."""
    return ((change @ moments) * change).sum(1)


def round_rows(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> Tensor:
    """`round_columns`, except for rows whose error it increases over rounding to nearest, as clipping can make it do."""
    moved = round_columns(weight, moments, quantizer)
    better = output_error(quantizer(moved) - weight, moments) < output_error(quantizer(weight) - weight, moments)
    return torch.where(better[:, None], moved, weight)


def fit_and_round(layer: QuantWeighted, moments: Tensor, damping: float) -> None:
    """Fit the weight's quantizer on the second moments of the inputs, then apply `round_rows`; both in place."""
    damped = moments + damping * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moments), device=moments.device)
    quantizer: Any = layer.weight_quantizer
    rows = layer.weight.flatten(1)
    quantizer.fit(rows, **({"gram": damped} if "gram" in quantizer.measures else {}))
    layer.weight.copy_(round_rows(rows, damped, quantizer).view_as(layer.weight))


def _per_value(state: Tensor, grid: Affine, weight: Tensor) -> Tensor:
    """A scale or zero point for every value of the weight (R, M), float64."""
    if grid.group_size:
        state = state.repeat_interleave(grid.group_size, 1)
    return state.double().expand_as(weight)


def is_rounded(layer: nn.Module) -> bool:
    """Whether GPTQ rounds a module's weight. The groups of a convolution would have second moments of their own."""
    is_grouped = isinstance(layer, QuantConv2d) and layer.groups > 1
    return isinstance(layer, QuantWeighted) and layer.weight_quantizer.affine is not None and not is_grouped


def _rounded_layers(unit: Unit) -> Iterator[Any]:
    return (part for owner in unit.modules for part in owner.modules() if is_rounded(part))


class _Collected(Exception):  # noqa: N818 - not an error
    """Ends a forward pass once the inputs of the layer in question are collected."""


def _second_moments(unit: Unit, layer: QuantWeighted, batches: list[Tensor], run: Run) -> Tensor:
    """E[x xᵀ] (in, in) of the quantized, shifted inputs of `layer` over all tokens, or patches, of all processes.

    Batches are summed in float64, so that the result does not depend on their order or on their distribution over processes.
    """
    device, inputs = layer.weight.device, layer.weight[0].numel()
    total = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
    tokens = torch.zeros((), dtype=torch.long, device=device)

    def collect(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        # The patches of a convolution are many times as large as its input: an image at a time.
        for part in output.split(1) if isinstance(layer, QuantConv2d) else [output]:
            rows = layer.input_rows(part)
            total.add_(rows.T @ rows)
            tokens.add_(len(rows))
        raise _Collected

    with hooked([layer.input_quantizer.register_forward_hook(collect)]):
        for batch in batches:
            with suppress(_Collected):
                unit.forward(batch.to(device))
    return (run.total(total) / run.total(tokens).clamp(min=1)).to(layer.weight.dtype)


def _upper_factor_of_inverse(moments: Tensor) -> Tensor:
    """Upper triangular U with Uᵀ U = moments⁻¹, float64."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments.double()))
    return torch.linalg.cholesky(inverse, upper=True)
