"""Run a teacher as in training: paths dropped at random, normalised by the batch's own statistics; nothing of it stays."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

HIGHEST_RATE = 0.1


def drop_rates(model: nn.Module, rate: float | None = None) -> dict[str, float]:
    """Return the drop rate of each path by the name of its `drop_path*` submodule.

    From 0 at the first block linearly to `rate` at the last. By default the model's own rates, if it has any; else none where
    the batch's statistics make the difference (BatchNorm), and up to .1 where nothing else would.
    """
    paths = {name: part for name, part in model.named_modules() if name.rpartition(".")[2].startswith("drop_path")}
    own = {name: float(getattr(part, "drop_prob", 0.0) or 0.0) for name, part in paths.items()}
    if rate is None and (any(own.values()) or batch_norms(model)):
        return own
    blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in paths))
    highest, last = HIGHEST_RATE if rate is None else rate, max(len(blocks) - 1, 1)
    return {name: highest * blocks.index(name.rpartition(".")[0]) / last for name in paths}


@contextmanager
def dropped_paths(model: nn.Module, rates: dict[str, float], uniform: Tensor) -> Iterator[None]:
    """Within the block, path p of image b is dropped where `uniform[b, p]` (B, P) in [0, 1) is below its rate, else scaled up.

    The hooks are gone when the block ends.
    """
    modules = dict(model.named_modules())
    keep = 1 - torch.tensor(list(rates.values()), device=uniform.device)
    factors = (uniform >= 1 - keep) / keep.clamp(min=1e-6)  # (B, P)

    def scale_by(column: Tensor):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
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
    """Within the block, BatchNorms use the batch's statistics; yields copies of their buffers, to be updated in their place."""
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
    return {name: part for name, part in model.named_modules() if isinstance(part, _BatchNorm)}
