"""Limits on the description of a model, which may come from an untrusted file.

`check_*` refuse values that no model has, before timm reads them. `bounded` stops a model that grows too large while timm builds
it; `fits_memory` and `fits_file` are the limits.
"""

import inspect
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
from timm.models._builder import build_model_with_cfg
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

LARGEST_NUMBER = 2**16  # of an argument: no width, image, depth or number of classes in timm is larger
LONGEST_NAME = 300
MOST_MODULES = 2**14  # the deepest ViTs of timm have 1,300
MOST_BUFFER_NUMBERS = 2**28  # masks and indices of windows, computed from the image size; 1 GB
UNKNOWN_MEMORY = 2**34  # bytes, where the system does not report its memory
# Origins of weights, changes to them at loading, and switches of the whole process: not arguments of a structure.
RESERVED = {
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters,
    *("features_only", "device", "dtype"),
} - {"kwargs"}


def check_description(model: dict[str, Any]) -> None:
    """Check the values that `build` makes a structure of: the content of `model.vitdfq["model"]`.

    Raises:
        ValueError: one is missing, of the wrong type, or cannot be part of a model.
    """
    kinds = {"name": str, "architecture": str, "model_args": dict, "num_classes": int, "pretrained_cfg": dict}
    for key, kind in kinds.items():
        if not isinstance(model.get(key), kind) or isinstance(model[key], bool):
            raise ValueError(f"model.{key} is {short(model.get(key))}; expected a {kind.__name__}")
        if kind is str and len(model[key]) > LONGEST_NAME:
            raise ValueError(f"model.{key} is {short(model[key])}: no model has such a name")
    if not isinstance(model.get("family", ""), str):
        raise ValueError(f"model.family is {short(model['family'])}; expected the name of a family")
    check_arguments(model["model_args"] | {"num_classes": model["num_classes"]})
    check_pretrained_cfg(model["pretrained_cfg"])


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check keyword arguments of a timm model.

    Raises:
        ValueError: one does not shape the structure, or a number is not finite or larger than `LARGEST_NUMBER`.
    """
    for key, value in arguments.items():
        if key in RESERVED:
            raise ValueError(f"{key} is no argument that shapes a model")
        for number in _numbers(value):
            if not math.isfinite(number) or abs(number) > LARGEST_NUMBER:
                raise ValueError(f"{key} is {short(value)}: no model has that")


def check_pretrained_cfg(pretrained_cfg: dict[str, Any]) -> None:
    """Check the description of the images: size, mean, standard deviation and crop, where given, and the texts beside them.

    Raises:
        ValueError: no image has such a value, or a text is not a text.
    """
    triples: dict[str, Callable[[int | float], bool]] = {
        "input_size": lambda number: isinstance(number, int) and 0 < number <= LARGEST_NUMBER,
        "test_input_size": lambda number: isinstance(number, int) and 0 < number <= LARGEST_NUMBER,
        "mean": lambda number: abs(number) < LARGEST_NUMBER,
        "std": lambda number: 1e-6 < number < LARGEST_NUMBER,
    }
    for key, fits in triples.items():
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


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Within the block no more than `most` numbers of parameters are registered, on whatever device.

    A parameter is refused when a module registers it, before it is initialized: on the meta device nothing was allocated until
    then, elsewhere nothing was touched.

    Raises:
        ValueError: within the block, when a model grows larger.
    """
    counts = {"modules": 0, "parameters": 0, "buffers": 0}

    def count(what: str, number: int, limit: int) -> None:
        counts[what] += number
        if counts[what] > limit:
            raise ValueError(f"it would have more than {limit:,} {'modules' if what == 'modules' else f'numbers in its {what}'}")

    def on_parameter(module: nn.Module, name: str, value: Tensor | None) -> None:
        count("parameters", 0 if value is None else value.numel(), most)

    def on_buffer(module: nn.Module, name: str, value: Tensor | None) -> None:
        count("buffers", 0 if value is None else value.numel(), MOST_BUFFER_NUMBERS)

    def on_module(module: nn.Module, name: str, value: nn.Module | None) -> None:
        count("modules", 1, MOST_MODULES)

    hooks = [
        torch_module.register_module_parameter_registration_hook(on_parameter),
        torch_module.register_module_buffer_registration_hook(on_buffer),
        torch_module.register_module_module_registration_hook(on_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def fits_memory() -> int:
    """Return how many float32 numbers this machine's memory holds."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):  # not every system reports it
        return UNKNOWN_MEMORY // 4


def fits_file(num_bytes: int) -> int:
    """Return how many parameters a file can fill: at least 2 bits each, and a few that preparation makes superfluous."""
    return 8 * num_bytes + 2**20


def short(value: Any) -> str:
    """Return a value for an error message: its first 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + " ..."


def _numbers(value: Any) -> list[int | float]:
    """The numbers in an argument, however nested; truth values do not count."""
    if isinstance(value, list | tuple):
        return [number for part in value for number in _numbers(part)]
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
