"""The memory of training: bytes of the activations that forward passes save for the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.training.output_distance import run_to_outputs
from vitdfq.training.trainable import trainable


def bytes_saved_for_backward(run: Callable[[], Any], model: nn.Module) -> int:
    """Bytes that the forward passes of a call save for the backward pass.

    Args:
        run: makes the forward passes, with gradients enabled.
        model: its parameters and buffers are not counted.
    """
    model_storages = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    sizes: dict[int, int] = {}  # by storage, since several saved tensors may share one

    def record_size(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in model_storages:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(record_size, lambda value: value):
        run()
    return sum(sizes.values())


def training_bytes_per_image(student: nn.Module, image: Tensor) -> int:
    """Bytes that one image (1, 3, H, W) saves for the backward pass while the whole student is trained."""
    with trainable([student]):
        return bytes_saved_for_backward(lambda: run_to_outputs(student, image, with_stream=True), student)
