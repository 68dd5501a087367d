"""Cached activations: the input of a unit, for all images, waits in host memory and is forwarded a batch at a time.

They take images x tokens x width x 4 bytes: 620 MB for 1,024 images in front of a block of ViT-B/16 (197 tokens of width 768).
Each step that caches activations states how many copies it holds. The model's device holds one batch, however many images there
are.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """The device of the model, where a batch has to go."""
    return next(model.parameters()).device


@torch.no_grad()
def forward_in_batches(forward: Callable[[Tensor], Tensor], activations: Tensor, device: torch.device, batch_size: int) -> Tensor:
    """Return `forward(activations)` (N, ...), on the CPU.

    The memory layout is that of `forward`'s result, since a product can round otherwise where its operands lie otherwise. For
    the same reason another `batch_size` can change last digits.

    Args:
        forward: of a unit or a model; it treats each image by itself.
        activations: (N, ...), N > 0, on the CPU.
        device: where `forward` computes.
        batch_size: images in one call of it; bounds memory on the device.
    """
    result, done = torch.empty(0), 0
    for batch in activations.split(batch_size):
        output = forward(batch.to(device))
        if done == 0:  # written in place: joining the batches at the end would need the memory twice
            outermost_first = sorted(range(output.ndim), key=output.stride, reverse=True)
            result = torch.empty_permuted((len(activations), *output.shape[1:]), outermost_first, dtype=output.dtype)
        result[done : done + len(output)] = output
        done += len(output)
    return result
