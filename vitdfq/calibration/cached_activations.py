"""Streams: what reaches a unit, of all images, waits in host memory and is forwarded a batch at a time.

A stream takes images x tokens x width x 4 bytes of host memory: 620 MB for 1,024 images in front of a block of ViT-B/16 (197
tokens of width 768). Each step that has streams says how many it holds at once. Beyond them it needs, on the model's device, what
one batch needs, however many images there are.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Where the model is, and so where a batch has to go."""
    return next(model.parameters()).device


@torch.no_grad()
def forwarded(forward: Callable[[Tensor], Tensor], stream: Tensor, device: torch.device, batch_size: int) -> Tensor:
    """Return `forward(stream)` (N, ...), on the CPU.

    Memory is laid out as `forward` does it, since a product can round otherwise where its operands lie otherwise. For the same
    reason another `batch_size` can change last digits.

    Args:
        forward: treats each image by itself: a unit's or a model's.
        stream: (N, ...), N > 0, on the CPU.
        device: where `forward` computes.
        batch_size: images in one call of it; bounds memory on the device.
    """
    result, done = torch.empty(0), 0
    for part in stream.split(batch_size):
        output = forward(part.to(device))
        if done == 0:  # written in place: joining the parts at the end would need the memory twice
            outermost_first = sorted(range(output.ndim), key=output.stride, reverse=True)
            result = torch.empty_permuted((len(stream), *output.shape[1:]), outermost_first, dtype=output.dtype)
        result[done : done + len(output)] = output
        done += len(output)
    return result
