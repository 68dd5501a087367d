"""config.json of `transformers`: values of the type they must have, or the default where the file leaves them out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.models.untrusted import short

ACTIVATIONS = {  # transformers' name -> timm's
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Config:
    """The values of one section, and what is to be made of them.

    `save_pretrained` leaves out what is the default, above all in a `vision_config`.
    """

    file: Path
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    gives: str  # "classes", "distilled classes", "projection" or "features"
    num_classes: int  # outputs of the head; 0: none
    img_size: int | list[int] | None = None  # to be built for; None: `image_size`

    def whole(self, key: str) -> int:
        return self._value(key, "a whole number above 0", _is_whole)

    def size(self, key: str) -> int | list[int]:
        """Return a side, or height and width."""
        return self._value(key, "a size", lambda value: _is_whole(value) or (_are_whole(value) and len(value) == 2))

    def wholes(self, key: str) -> list[int]:
        return self._value(key, "a list of whole numbers above 0", _are_whole)

    def number(self, key: str) -> float:
        return self._value(key, "a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))

    def flag(self, key: str) -> bool:
        return self._value(key, "true or false", lambda value: isinstance(value, bool))

    def activation(self) -> str:
        """Return timm's name of the MLPs' activation."""
        choices = ", ".join(ACTIVATIONS)
        return ACTIVATIONS[self._value("hidden_act", f"one of {choices}", lambda value: value in list(ACTIVATIONS))]

    def _value(self, key: str, expected: str, fits: Callable[[Any], bool]) -> Any:
        value = self.values.get(key, self.defaults.get(key))
        if not fits(value):
            raise InputError(f"{self.file}: {key} is {short(value)}; expected {expected}")
        return value


def sides(size: int | list[int]) -> tuple[int, int]:
    """Return (height, width) of a size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_whole(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_whole, value))
