"""Watch one pass of a model on the meta device: which module calls which, and which torch functions each calls itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from vitdfq.models.record import hooked


@dataclass
class Call:
    """A call of a torch function, or of a module with the calls that its forward makes."""

    target: Any  # the function, or the module
    name: str | None  # of the module, "" for the model itself; None for a function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any = None
    inner: list["Call"] = field(default_factory=list)  # in order; of a function nothing

    def walk(self) -> Iterator["Call"]:
        """Yield this call and all below it, each before those that it makes."""
        yield self
        for call in self.inner:
            yield from call.walk()


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, list | tuple) else []


def watch(ghost: nn.Module, images: Tensor) -> Call:
    """Return the call of `ghost`, a model on the meta device that never ran before, on images that require a gradient.

    What depends on the images requires a gradient, and nothing else does.
    """
    names = {part: name for name, part in reversed(list(ghost.named_modules(remove_duplicate=False)))}
    watcher = _Watcher(Call(None, None, (), {}))
    with torch.enable_grad(), torch.device("meta"), _hooks(names, watcher), watcher:
        ghost(images)
    return watcher.running[0].inner[0]


class _Watcher(TorchFunctionMode):
    def __init__(self, top: Call) -> None:
        super().__init__()
        self.running = [top]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = Call(func, None, _frozen(args), kwargs)
        call.output = func(*args, **kwargs)
        if func in WRITERS or tensors_in(call.output):
            self.running[-1].inner.append(call)
        return call.output


WRITERS = (Tensor.__setitem__,)  # they return nothing and change a tensor


def _frozen(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as they are now: a list may change later."""
    return tuple(list(part) if isinstance(part, list) else part for part in args)


@contextmanager
def _hooks(names: Mapping[nn.Module, str], watcher: _Watcher) -> Iterator[None]:
    """Hooks of all modules there are: a hook of its own would change what an opened attention runs."""

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        watcher.running.append(Call(module, names[module], _frozen(args), {}))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = watcher.running.pop()
        call.kwargs, call.output = kwargs, output
        watcher.running[-1].inner.append(call)

    leaving = register_module_forward_hook(leave, with_kwargs=True)
    try:
        with hooked((register_module_forward_pre_hook(enter), leaving)):
            yield
    finally:  # torch leaves this entry when it removes the hook, and torch.compile would warn of it ever after
        _global_forward_hooks_with_kwargs.pop(leaving.id, None)
