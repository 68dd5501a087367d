"""A limit to what a model may hold while it is being built: its arguments may come from a stranger's file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

MOST_MODULES = 2**14  # the deepest ViTs of timm have 1,300
MOST_BUFFER_NUMBERS = 2**28  # windows' masks and indices, computed from the image size; 1 GB
UNKNOWN_MEMORY = 2**34


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Within the block no more than `most` numbers of parameters are registered, on whatever device.

    A parameter is refused when a module takes it up, before it is initialised: on the meta device nothing was allocated until
    then, elsewhere nothing was touched.

    Raises:
        ValueError: within the block, when a model grows larger.
    """
    seen = {"modules": 0, "parameters": 0, "buffers": 0}

    def count(what: str, number: int, limit: int) -> None:
        seen[what] += number
        if seen[what] > limit:
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
    """How many float32 numbers this machine's memory holds."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):  # not every system tells
        return UNKNOWN_MEMORY // 4


def fits_file(num_bytes: int) -> int:
    """How many numbers of parameters a file can fill: 2 bits each at the least, and a few that preparation makes superfluous."""
    return 8 * num_bytes + 2**20
