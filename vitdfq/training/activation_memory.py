"""The memory of training: what forward passes keep for the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.training.output_distance import run_to_outputs
from vitdfq.training.trainable import trainable


def bytes_saved_for_backward(run: Callable[[], Any], model: nn.Module) -> int:
    """Bytes that the forward passes of a call keep for the backward pass, without parameters and buffers."""
    known = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    sizes: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        run()
    return sum(sizes.values())


def training_bytes_per_image(student: nn.Module, image: Tensor) -> int:
    """Bytes that one image (1, 3, H, W) keeps while the whole student is trained."""
    with trainable([student]):
        return bytes_saved_for_backward(lambda: run_to_outputs(student, image), student)
