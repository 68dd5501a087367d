"""Functions that compute gradients wherever they are called."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs as outside `torch.no_grad()` and `torch.inference_mode()`.

    Quantization is often called inside one of them. Tensors that are created in inference mode can never be trained, so that what
    makes a model needs this too.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*args, **kwargs)

    return wrapped
