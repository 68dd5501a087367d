"""Counts of images in the forward passes of a model."""

from collections.abc import Callable

import torch


def batch_sizes(model: torch.nn.Module, run: Callable[[], object]) -> list[int]:
    """The number of images in each pass through the first block during `run()`."""
    sizes: list[int] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    run()
    hook.remove()
    return sizes
