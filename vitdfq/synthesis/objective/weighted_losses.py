"""The objective: weighted losses from `{name: {weight, after, every, option...}}`, their values and their sum."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitdfq.common.errors import NotFiniteError
from vitdfq.common.lookup import did_you_mean, lookup
from vitdfq.synthesis.losses import LOSSES
from vitdfq.synthesis.objective.context import Draws, Loss, Pass, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks

MAPPING = "a mapping {name: {weight: 1.0, option: value}}"  # what the keyword `losses` takes


@dataclass(frozen=True)
class WeightedLoss:
    """One summand of the objective: a loss, its weight, when it is computed, and its options."""

    name: str
    loss: Loss
    weight: float
    options: dict[str, Any]
    after: float = 0.0  # share of the run before its first step
    every: int = 1  # computed only at multiples of this step, with as many times its weight

    def is_active(self, step: int, steps: int) -> bool:
        """Whether it is part of the objective at this step."""
        return step >= self.after * steps and step % self.every == 0

    def value(self, ctx: SynthContext) -> Tensor:
        """Return the unweighted loss, (B,).

        Raises:
            ValueError: the loss returned another shape.
        """
        value = self.loss.function(ctx, **_accepted(self.loss.function, 1, self.options))
        if value.shape != ctx.outputs.shape[:1]:
            expected = tuple(ctx.outputs.shape[:1])
            raise ValueError(f"loss {self.name!r} must return one value an image, {expected}, got {tuple(value.shape)}")
        return value

    def draw(self, rng: torch.Generator, facts: TeacherFacts) -> Draws:
        """Return the draws that stay fixed for one view; {} if the loss draws nothing."""
        if self.loss.draw is None:
            return {}
        return self.loss.draw(rng, facts, **_accepted(self.loss.draw, 2, self.options))

    def passes(self, ctx: SynthContext, networks: Networks) -> list[Pass]:
        """Run the additional passes of the loss; [] if it needs only the teacher's pass in `ctx`."""
        if self.loss.passes is None:
            return []
        return self.loss.passes(ctx, networks, **_accepted(self.loss.passes, 2, self.options))


def objective(terms: list[WeightedLoss], ctx: SynthContext, networks: Networks) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the losses that are active at the context's step, and run only the passes that these need.

    Returns:
        The weighted sum over losses and views, 0-d, and the unweighted values of each active loss, (B,).
    """
    active = [term for term in terms if term.is_active(ctx.step, ctx.steps)]
    ctx = replace(ctx, passes={term.name: term.passes(ctx, networks) for term in active})
    values = {term.name: term.value(ctx) for term in active}
    if not values:
        return ctx.images.sum() * 0, {}
    return torch.stack([term.weight * term.every * values[term.name].sum() for term in active]).sum(), values


def finite_sums(values: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """Return the sum over views of each loss's values (B,), with a single synchronization with the device.

    Raises:
        NotFiniteError: a loss is NaN or infinite; with the rows of the views for which it is.
    """
    sums = torch.stack([value.detach().sum() for value in values.values()]).tolist() if values else []
    for name, value in zip(values, sums, strict=True):
        if not math.isfinite(value):
            rows = (~values[name].isfinite()).nonzero().flatten().tolist()
            raise NotFiniteError(f"loss {name!r} is {value} at step {step}; try a smaller lr or weight", rows)
    return dict(zip(values, sums, strict=True))


def resolve_losses(losses: Mapping[str, Any]) -> list[WeightedLoss]:
    """Return the losses with their weights and options checked; those of weight 0 are left out.

    Raises:
        ValueError: an unknown loss or option (with the nearest choice), or a weight that is not a finite number.
    """
    terms = [_resolve(name, spec) for name, spec in losses.items()]
    return [term for term in terms if term.weight != 0]


def listened_names(terms: list[WeightedLoss], facts: TeacherFacts) -> list[str]:
    """Return the names of the submodules to record for these losses, see `vitdfq.models.record`."""
    return [name for term in terms for name in term.loss.listens(facts)]


def merge(preset: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the preset's losses with `changes`: options of a loss of the preset change, other losses are added.

    Raises:
        ValueError: `changes` is not a mapping, or one of its values is neither a mapping nor a function.
    """
    if changes is not None and not isinstance(changes, Mapping):
        raise ValueError(f"losses takes {MAPPING}, got {changes!r}")
    merged = {name: dict(spec) for name, spec in preset.items()}
    for name, change in (changes or {}).items():
        spec = {"function": change} if callable(change) or isinstance(change, Loss) else change
        if not isinstance(spec, Mapping):
            raise ValueError(f"losses takes {MAPPING}; loss {name!r} takes a mapping or a function, got {change!r}")
        merged[name] = {**merged.get(name, {}), **spec}
    return merged


def _resolve(name: str, spec: Mapping[str, Any]) -> WeightedLoss:
    options = dict(spec)
    function = options.pop("function", None)
    weight = options.pop("weight", 1.0)
    if function is None:
        loss = lookup(name, LOSSES, "loss")
    else:
        loss = function if isinstance(function, Loss) else Loss(function)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"the weight of loss {name!r} must be a finite number, got {weight!r}")
    after, every = options.pop("after", 0.0), options.pop("every", 1)
    if isinstance(after, bool) or not isinstance(after, int | float) or not 0 <= after < 1:
        raise ValueError(f"`after` of loss {name!r} is a share of the steps from 0 to below 1, got {after!r}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"`every` of loss {name!r} is a number of steps, at least 1, got {every!r}")
    known = list(dict.fromkeys(option for function, inputs in loss.needs() for option in _options(function, inputs)))
    for option in options:
        if option not in known:
            choices = ["weight", "after", "every", *known]
            near = did_you_mean(option, choices)
            raise ValueError(f"unknown option {option!r} of loss {name!r}{near}; choices: {', '.join(choices)}")
    return WeightedLoss(name, loss, float(weight), options, float(after), every)


def _options(function: Callable[..., Any], num_inputs: int) -> list[str]:
    """Return the names of a function's options: its parameters after the inputs that the engine passes."""
    return list(inspect.signature(function).parameters)[num_inputs:]


def _accepted(function: Callable[..., Any], num_inputs: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a function takes: the functions of a loss share one set of options."""
    names = _options(function, num_inputs)
    return {name: value for name, value in options.items() if name in names}
