"""Several dictionaries of tensors in one, such as the states of a model and its optimizer in one file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports this file before it needs torch
    from torch import Tensor

Tensors = dict[str, "Tensor"]


def merge_prefixed(**dicts: Tensors) -> Tensors:
    """Return one dict of all tensors; the key of `name` in the dict passed as `prefix` is "prefix/name"."""
    return {f"{prefix}/{name}": value for prefix, tensors in dicts.items() for name, value in tensors.items()}


def take_prefixed(tensors: Tensors, prefix: str) -> Tensors:
    """Return the dict that `merge_prefixed` got as `prefix`; {} if it got none of that name."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
