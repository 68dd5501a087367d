"""Cached activations: the input of a unit for all images, in host memory, and the forward pass of a unit in batches.

The input of a block of ViT-B/16 (197 tokens of width 768) takes 620 MB for 1,024 images: images x tokens x width x 4 bytes. Each
step that caches activations states how many copies it holds. The model's device holds one batch, whatever the number of images.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


@torch.no_grad()
def forward_in_batches(forward: Callable[[Tensor], Tensor], activations: Tensor, device: torch.device, batch_size: int) -> Tensor:
    """Return `forward(activations)` (N, ...), on the CPU.

    The strides are those of `forward`'s output, since the rounding of a product depends on the memory layout of its operands. It
    also depends on their size, so that another `batch_size` can change last digits.

    Args:
        forward: of a unit or a model; its output for an image does not depend on the other images.
        activations: (N, ...), N > 0, on the CPU.
        device: of the parameters that `forward` uses.
        batch_size: images in one call of `forward`; bounds memory on the device.
    """
    result, done = torch.empty(0), 0
    for batch in activations.split(batch_size):
        output = forward(batch.to(device))
        if done == 0:  # one tensor for all batches: joining them at the end would need the memory twice
            outermost_first = sorted(range(output.ndim), key=output.stride, reverse=True)
            result = torch.empty_permuted((len(activations), *output.shape[1:]), outermost_first, dtype=output.dtype)
        result[done : done + len(output)] = output
        done += len(output)
    return result
