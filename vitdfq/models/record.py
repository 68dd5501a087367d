"""Hooks that are removed when a block ends: record what named submodules give out during forward passes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from vitdfq.common.lookup import did_you_mean

INPUT = ":input"


@contextmanager
def record(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a dict that holds, after each forward pass within the block, the output of every named submodule.

    A name with `:input` behind it ("blocks.3.norm1:input") stands for the submodule's first input. Outputs keep their
    gradient history. The hooks are removed when the block ends, however it ends. An attention with hooks inside (`.qk`,
    `.softmax`: (B * num_windows, heads, N, N); `.av`: (..., N, head_dim)) is not fused meanwhile; `.class_row`, (B, heads,
    N), is computed beside the fused kernel.

    Raises:
        ValueError: the model has no submodule of that name.
    """
    modules = dict(model.named_modules())
    names = list(dict.fromkeys(names))
    for name in names:
        if name.removesuffix(INPUT) not in modules:
            raise ValueError(f"the model has no submodule {name!r}{did_you_mean(name, modules)}")
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs[name] = args[0] if name.endswith(INPUT) else output

        return hook

    with hooked(modules[name.removesuffix(INPUT)].register_forward_hook(keep(name)) for name in names):
        yield outputs


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for the length of a block: `handles` registers them one by one; all are removed, however the block ends."""
    registered: list[RemovableHandle] = []
    try:
        registered.extend(handles)
        yield
    finally:
        for handle in registered:
            handle.remove()
