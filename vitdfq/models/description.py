"""What a file may say of a model: no argument that makes timm read or write other files, only sizes that some model has."""

import inspect
import math
from typing import Any

import timm
from timm.models._builder import build_model_with_cfg

LARGEST_NUMBER = 2**16  # of an argument: no width, image, depth or number of classes in timm is larger
LONGEST_NAME = 300
# Where weights come from, what is done to them on the way, and switches for the whole process: never an argument of a structure.
RESERVED = {
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters,
    *("features_only", "device", "dtype"),
} - {"kwargs"}


def check_description(model: dict[str, Any]) -> None:
    """Check the values that build a structure again, see `building.build`.

    Raises:
        ValueError: one is missing, of the wrong type, or no such thing as a model has.
    """
    kinds = {"name": str, "architecture": str, "model_args": dict, "num_classes": int, "pretrained_cfg": dict}
    for key, kind in kinds.items():
        if not isinstance(model.get(key), kind) or isinstance(model[key], bool):
            raise ValueError(f"model.{key} is {short(model.get(key))}; expected a {kind.__name__}")
        if kind is str and len(model[key]) > LONGEST_NAME:
            raise ValueError(f"model.{key} is {short(model[key])}: no model is called so")
    check_arguments(model["model_args"] | {"num_classes": model["num_classes"]})
    check_pretrained_cfg(model["pretrained_cfg"])


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check keyword arguments of a timm model.

    Raises:
        ValueError: one is not for the structure, or a number is too large, negative where it counts something, or not finite.
    """
    for key, value in arguments.items():
        if key in RESERVED:
            raise ValueError(f"{key} is no argument that shapes a model")
        for number in _numbers(value):
            if not math.isfinite(number) or abs(number) > LARGEST_NUMBER:
                raise ValueError(f"{key} is {short(value)}: no model has that")


def check_pretrained_cfg(pretrained_cfg: dict[str, Any]) -> None:
    """Check what images are made of: their size, mean, standard deviation and crop, where given.

    Raises:
        ValueError: a value that no image can be made with.
    """
    for key, fits in (
        ("input_size", lambda number: isinstance(number, int) and 0 < number <= LARGEST_NUMBER),
        ("test_input_size", lambda number: isinstance(number, int) and 0 < number <= LARGEST_NUMBER),
        ("mean", lambda number: abs(number) < LARGEST_NUMBER),
        ("std", lambda number: 1e-6 < number < LARGEST_NUMBER),
    ):
        value = pretrained_cfg.get(key)
        if value is None:
            continue
        numbers = _numbers(value) if isinstance(value, list | tuple) else []
        if len(numbers) != 3 or len(value) != 3 or not all(math.isfinite(number) and fits(number) for number in numbers):
            raise ValueError(f"pretrained_cfg.{key} is {short(value)}; expected three numbers that images can have")
    for key in ("crop_pct", "test_crop_pct"):
        value = pretrained_cfg.get(key)
        if value is not None and not (isinstance(value, int | float) and 0 < value <= 10):
            raise ValueError(f"pretrained_cfg.{key} is {short(value)}; expected a share of the image")
    for key in ("architecture", "tag", "interpolation", "license", "hf_hub_id"):
        value = pretrained_cfg.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"pretrained_cfg.{key} is {short(value)}; expected text")


def short(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + " ..."


def _numbers(value: Any) -> list[int | float]:
    """The numbers in an argument, however nested; truth values are none."""
    if isinstance(value, list | tuple):
        return [number for part in value for number in _numbers(part)]
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
