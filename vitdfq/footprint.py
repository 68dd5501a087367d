"""What a stage keeps in memory: counted on one image, or asked of the process."""

import resource
import sys
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.saved import saved_bytes
from vitdfq.models import image_size
from vitdfq.probe import moved, run_steps
from vitdfq.synthesis import Method


def synthesis_bytes(teacher: nn.Module, method: Method) -> int:
    """Bytes that one whole image keeps in one step of a method."""
    return saved_bytes(lambda: run_steps(teacher, method, steps=1, count=1), teacher) // moved(method, 1)


def widest(model: nn.Module) -> int:
    """Values in the largest output of a module for one image."""
    largest = 0

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [part.register_forward_hook(look) for part in model.modules()]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *image_size(model), device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def memory_used(device: torch.device) -> int:
    """The most bytes that this process has held so far, on the device that does the work."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
