"""Tensors that become a model's weights, all of them: what does not fit is named."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

SHOWN = 3  # names in a message


class Misfit(NamedTuple):
    """The names in which tensors differ from those that a model has."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        parts = (("lacks", self.missing), ("has besides", self.unexpected), ("has in another shape", self.reshaped))
        return "; ".join(f"{what} {few(names)}" for what, names in parts if names)


def misfit(model: nn.Module, tensors: Mapping[str, Tensor]) -> Misfit | None:
    """Return how the tensors differ from a model's by name and shape; None where they fit."""
    expected = model.state_dict()
    result = Misfit(
        [name for name in expected if name not in tensors],
        [name for name in tensors if name not in expected],
        [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape],
    )
    return result if any(result) else None


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the tensors, which fit, in its own precision."""
    expected = model.state_dict()
    model.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})


def few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:100] for name in names[:SHOWN]) + more
