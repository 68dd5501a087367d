"""Data-parallel training: each process computes the gradients of some images of a batch, and gradients are summed."""

from collections.abc import Iterable

import torch
from torch import Tensor

from vitdfq.runtime.run import Run


def run_for_batches(run: Run, images: int) -> Run:
    """The run that shares batches of `images` images. If a process would get none, every process does the whole batch."""
    return run if images >= run.count else Run()


def sum_gradients(parameters: Iterable[Tensor], run: Run) -> None:
    """Replace each parameter's gradient by its sum over the processes; a parameter without a gradient counts as zero."""
    if run.count == 1:
        return
    parameters = list(parameters)
    flat = [torch.zeros_like(value).flatten() if value.grad is None else value.grad.flatten() for value in parameters]
    sums = run.total(torch.cat(flat)).split([value.numel() for value in parameters])  # one sum of all, not hundreds
    for value, total in zip(parameters, sums, strict=True):
        value.grad = total.view_as(value).clone()
