"""Adam with a short warm-up and a half-cosine decay, for all training of students; its state is a flat dict of tensors."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from vitdfq.runtime.run import Tensors

WARMUP_STEPS = 20  # Adam's first estimates of the moments are noise
PREFIX = "adam/"  # of the optimizer's tensors in a dict with other tensors


class AdamWarmupCosine:
    """Adam over parameter groups, each with its own peak rate.

    Args:
        groups: see `TrainableParameters.groups`; "lr" is the peak rate.
        steps: length of the schedule.
        betas: of Adam.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], steps: int, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.optimizer = torch.optim.Adam(groups, betas=betas)
        self.optimizer.zero_grad()  # a training that failed before may have left NaN
        self.scheduler = LambdaLR(self.optimizer, lambda step: warmup_cosine(step, steps))

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def done(self) -> int:
        """Number of steps taken."""
        return self.scheduler.last_epoch

    def step(self) -> None:
        """Update the parameters with their gradients, then clear the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()

    def halve_rates(self) -> None:
        """Continue at half the peak rates."""
        self._set_rates([float(peak) / 2 for peak in self.scheduler.base_lrs], self.done)

    def state(self) -> Tensors:
        """All that is needed to continue from here, except the parameters."""
        peaks = torch.tensor(self.scheduler.base_lrs, dtype=torch.float64)
        return optimizer_state(self.optimizer) | {"done": torch.tensor(self.done), "peaks": peaks}

    def restore(self, state: Tensors) -> None:
        """Continue from a result of `state`, at its peak rates."""
        restore_optimizer(self.optimizer, state)
        self._set_rates(state["peaks"].tolist(), int(state["done"]))

    def _set_rates(self, peaks: list[float], done: int) -> None:
        self.scheduler.base_lrs = list(peaks)
        self.scheduler.last_epoch = done
        for group, peak, factor in zip(self.optimizer.param_groups, peaks, self.scheduler.lr_lambdas, strict=True):
            group["lr"] = peak * factor(done)


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """Copies of an optimizer's state of every parameter, as one flat dict: {"adam/0/exp_avg": ..., "adam/0/step": ...}."""
    state = optimizer.state_dict()["state"]
    return {f"{PREFIX}{index}/{name}": value.clone() for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Tensors) -> None:
    """Restore a result of `optimizer_state`. Other keys are ignored; a parameter without an entry starts without state."""
    entries: dict[int, Tensors] = {}
    for key, value in state.items():
        if key.startswith(PREFIX):
            index, _, name = key.removeprefix(PREFIX).partition("/")
            entries.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def warmup_cosine(step: int, steps: int) -> float:
    """The rate at a step as a share of the peak rate: a linear warm-up times a half cosine from 1 to 0."""
    warmup = min(1.0, (step + 1) / min(WARMUP_STEPS, max(1, steps // 5)))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / steps))
