"""Adam as all training of students uses it: rates rise shortly and fall by a half cosine, and its state can be kept."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

WARMUP_STEPS = 20  # steps in which the rate rises: Adam's first moments are noise
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam remembers of a parameter


class AdamWarmupCosine:
    """`steps` steps of Adam over parameter groups (see `TrainableParameters.groups`), each at its own rate."""

    def __init__(self, groups: Iterable[dict[str, Any]], steps: int, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.optimizer = torch.optim.Adam(groups, betas=betas)
        self.optimizer.zero_grad()  # a descent that broke may have left NaN
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.steps, self.done = steps, 0

    @property
    def parameters(self) -> list[Tensor]:
        return _parameters(self.optimizer)

    def step(self) -> None:
        """Move the parameters along the gradients that they have, and forget these."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate(self.done, self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1

    def state(self) -> dict[str, Tensor]:
        """What is needed to go on from here, beside the parameters."""
        return moments(self.optimizer) | {
            "done": torch.tensor(self.done),
            "peaks": torch.tensor(self.peaks, dtype=torch.float64),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken, at its rates."""
        self.done, self.peaks = int(state["done"]), state["peaks"].tolist()
        restore_moments(self.optimizer, state)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of what Adam remembers of each parameter that it has moved."""
    return {
        f"{name}_{number}": optimizer.state[parameter][name].clone()
        for number, parameter in enumerate(_parameters(optimizer))
        if parameter in optimizer.state
        for name in MOMENTS
    }


def restore_moments(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put what `moments` copied back; other keys are left alone."""
    for number, parameter in enumerate(_parameters(optimizer)):
        if f"step_{number}" in state:
            found = {name: state[f"{name}_{number}"] for name in MOMENTS}
            optimizer.state[parameter] = {
                name: value.clone() if name == "step" else value.clone().to(parameter) for name, value in found.items()
            }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def rate(step: int, steps: int) -> float:
    """Share of the peak rate: a short rise, then a half cosine to zero."""
    rise = min(1.0, (step + 1) / min(WARMUP_STEPS, max(1, steps // 5)))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
