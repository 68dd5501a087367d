"""Functions that compute gradients, in full precision, wherever they are called."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs as outside `torch.no_grad()`, `torch.inference_mode()` and `torch.autocast()`.

    Quantization is often called inside one of them. Tensors that are created in inference mode can never be trained, so that what
    makes a model needs this too. Autocast would compute ranges, rotations and Hessians in 16 bits.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as outside:
            outside.enter_context(torch.inference_mode(False))
            outside.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(device):
                    # No cache: an inner autocast would keep weights of earlier steps until the caller's own ends.
                    outside.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
            return function(*args, **kwargs)

    return wrapped
