"""Adam as all training of students uses it: the rate rises shortly and falls by a half cosine; its state is a dict of tensors."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from vitdfq.runtime.run import Tensors

WARMUP_STEPS = 20  # steps in which the rate rises: Adam's first moments are noise
PREFIX = "adam/"  # of the optimizer's tensors in a dict that holds others too


class AdamWarmupCosine:
    """`steps` steps of Adam over parameter groups (see `TrainableParameters.groups`), each at its own peak rate."""

    def __init__(self, groups: Iterable[dict[str, Any]], steps: int, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.optimizer = torch.optim.Adam(groups, betas=betas)
        self.optimizer.zero_grad()  # an earlier training that broke off may have left NaN
        self.scheduler = LambdaLR(self.optimizer, lambda step: warmup_cosine(step, steps))

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def done(self) -> int:
        """How many steps were taken."""
        return self.scheduler.last_epoch

    def step(self) -> None:
        """Move the parameters along the gradients that they have, and clear these."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()

    def halve_rates(self) -> None:
        """Go on at half the rates."""
        self._set_rates([float(peak) / 2 for peak in self.scheduler.base_lrs], self.done)

    def state(self) -> Tensors:
        """What is needed to go on from here, beside the parameters."""
        peaks = torch.tensor(self.scheduler.base_lrs, dtype=torch.float64)
        return optimizer_state(self.optimizer) | {"done": torch.tensor(self.done), "peaks": peaks}

    def restore(self, state: Tensors) -> None:
        """Go on where `state` was taken, at its rates."""
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
    return {f"{PREFIX}{index}/{name}": value.clone() for index, held in state.items() for name, value in held.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Tensors) -> None:
    """Put back what `optimizer_state` copied; other keys are ignored, and a parameter without an entry starts anew."""
    held: dict[int, Tensors] = {}
    for key, value in state.items():
        if key.startswith(PREFIX):
            index, _, name = key.removeprefix(PREFIX).partition("/")
            held.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})


def warmup_cosine(step: int, steps: int) -> float:
    """Share of the peak rate: a short rise, then a half cosine to zero."""
    rise = min(1.0, (step + 1) / min(WARMUP_STEPS, max(1, steps // 5)))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
