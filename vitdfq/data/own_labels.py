"""Labels of a set as it has them, for models that give features: equal classes have equal numbers in all of its splits."""

import hashlib
from collections.abc import Callable
from typing import Any

from vitdfq.common.errors import RecipeError
from vitdfq.data.class_names import normalized


def own_numbers(dataset: str, feature: Any) -> Callable[[Any], int]:
    """Return the function from a label of the set to the number of its class.

    A class that has a name is numbered by the name, not by its place among the classes: a split may lack some of them. The
    function raises ValueError for a label that is none.

    Args:
        dataset: its name, for messages.
        feature: of the column of labels.

    Raises:
        RecipeError: labels that are neither numbers nor names.
    """
    from datasets import ClassLabel

    dtype = str(getattr(feature, "dtype", ""))
    if isinstance(feature, ClassLabel):
        numbers = [_number_of_text(name) for name in feature.names]
        return lambda label: numbers[_checked(label, len(numbers))]
    if dtype.startswith(("int", "uint")):
        return lambda label: _checked(label)
    if dtype in ("string", "large_string"):
        return _number_of_text
    raise RecipeError(f"dataset {dataset}: column label must hold whole numbers or names of classes, found {feature}")


def _checked(label: Any, num_classes: int | None = None) -> int:
    if not isinstance(label, int) or label < 0 or (num_classes is not None and label >= num_classes):
        raise ValueError("which is no class; is this split labeled? (label_column: none reads no labels)")
    return label


def _number_of_text(text: str | None) -> int:
    """The number that a text writes, or one of 56 bits that stands for the name."""
    name = (text or "").strip()
    if not name:
        raise ValueError("which names no class")
    if name.isdecimal():
        return int(name)
    return int.from_bytes(hashlib.sha256(normalized(name).encode()).digest()[:7], "big")
