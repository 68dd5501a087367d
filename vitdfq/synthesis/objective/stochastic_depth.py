"""Run a teacher as in training: stochastic depth and batch statistics, without a lasting change of the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.synthesis.objective.context import BATCH_NORMS

HIGHEST_RATE = 0.1  # drop rate of the last block where the model has none


def drop_rates(model: nn.Module, rate: float | None = None) -> dict[str, float]:
    """Return the drop rate of each residual path by the name of its `drop_path*` submodule.

    Rates grow linearly from 0 at the first block to `rate` at the last. `rate` None keeps the model's rates if any is above 0,
    or if it has BatchNorms, whose batch statistics already differ from its running ones; other models get a highest rate of .1.
    """
    paths = {name: part for name, part in model.named_modules() if name.rpartition(".")[2].startswith("drop_path")}
    model_rates = {name: float(getattr(part, "drop_prob", 0.0) or 0.0) for name, part in paths.items()}
    if rate is None and (any(model_rates.values()) or batch_norms(model)):
        return model_rates
    blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in paths))
    highest, last = HIGHEST_RATE if rate is None else rate, max(len(blocks) - 1, 1)
    return {name: highest * blocks.index(name.rpartition(".")[0]) / last for name in paths}


@contextmanager
def dropped_paths(model: nn.Module, rates: dict[str, float], uniform: Tensor) -> Iterator[None]:
    """Within the block, drop path p of image b where `uniform[b, p]` is below its rate; scale it by 1 / (1 - rate) elsewhere.

    Args:
        model: the teacher; its hooks are removed when the block ends.
        rates: of P paths, by name, see `drop_rates`.
        uniform: (B, P) numbers in [0, 1).
    """
    modules = dict(model.named_modules())
    keep = 1 - torch.tensor(list(rates.values()), device=uniform.device)
    factors = (uniform >= 1 - keep) / keep.clamp(min=1e-6)  # (B, P)

    def scale_by(column: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output * column.to(output).view(-1, *[1] * (output.ndim - 1))

        return hook

    handles = []
    try:
        for name, column in zip(rates, factors.unbind(1), strict=True):
            handles.append(modules[name].register_forward_hook(scale_by(column)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, BatchNorms use the batch's statistics; yields copies of their buffers for the passes to update."""
    norms = batch_norms(model)
    modes = {name: norm.training for name, norm in norms.items()}
    buffers = {f"{name}.{key}": value.clone() for name, norm in norms.items() for key, value in norm.named_buffers()}
    try:
        for norm in norms.values():
            norm.training = True
        yield buffers
    finally:
        for name, norm in norms.items():
            norm.training = modes[name]


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the BatchNorms of a model by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, BATCH_NORMS)}
