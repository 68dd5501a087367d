"""Weighted losses: from `{name: {weight, after, every, option...}}` to values a view."""

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


@dataclass(frozen=True)
class WeightedLoss:
    """One summand of the objective."""

    name: str
    loss: Loss
    weight: float
    options: dict[str, Any]
    after: float = 0.0  # share of the run before its first step
    every: int = 1  # it is computed at every so many steps, and then weighs as much as all of them

    def is_active(self, step: int, steps: int) -> bool:
        """Whether it is part of the objective at this step."""
        return step >= self.after * steps and step % self.every == 0

    def value(self, ctx: SynthContext) -> Tensor:
        """The unweighted loss, (B,)."""
        value = self.loss.function(ctx, **_accepted(self.loss.function, 1, self.options))
        if value.shape != ctx.logits.shape[:1]:
            expected = tuple(ctx.logits.shape[:1])
            raise ValueError(f"loss {self.name!r} must return one value an image, {expected}, got {tuple(value.shape)}")
        return value

    def draw(self, rng: torch.Generator, facts: TeacherFacts) -> Draws:
        """What the loss keeps fixed for one view; {} if it draws nothing."""
        if self.loss.draw is None:
            return {}
        return self.loss.draw(rng, facts, **_accepted(self.loss.draw, 2, self.options))

    def passes(self, ctx: SynthContext, networks: Networks) -> list[Pass]:
        """The further passes that the loss asks for; [] if the teacher's own is enough."""
        if self.loss.passes is None:
            return []
        return self.loss.passes(ctx, networks, **_accepted(self.loss.passes, 2, self.options))


def objective(terms: list[WeightedLoss], ctx: SynthContext, networks: Networks) -> tuple[Tensor, dict[str, Tensor]]:
    """Return (the weighted total, 0-d; the unweighted value of each loss that is due at the step, (B,)).

    Only the passes of losses that are due run.
    """
    due = [term for term in terms if term.is_active(ctx.step, ctx.steps)]
    ctx = replace(ctx, passes={term.name: term.passes(ctx, networks) for term in due})
    values = {term.name: term.value(ctx) for term in due}
    if not values:
        return ctx.images.sum() * 0, {}
    return torch.stack([term.weight * term.every * values[term.name].sum() for term in due]).sum(), values


def finite_sums(values: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """The sum over views of each loss's values (B,), in one wait for the device.

    Raises:
        NotFiniteError: a loss is NaN or infinite; with the places of these views.
    """
    sums = torch.stack([value.detach().sum() for value in values.values()]).tolist() if values else []
    for name, value in zip(values, sums, strict=True):
        if not math.isfinite(value):
            where = (~values[name].isfinite()).nonzero().flatten().tolist()
            raise NotFiniteError(f"loss {name!r} is {value} at step {step}; try a smaller lr or weight", where)
    return dict(zip(values, sums, strict=True))


def resolve_losses(losses: Mapping[str, Any]) -> list[WeightedLoss]:
    """Check names, weights and options before any work; terms of weight 0 are left out.

    Raises:
        ValueError: an unknown loss or option (with the nearest choice), or a weight that is no finite number.
    """
    terms = [_resolve(name, spec) for name, spec in losses.items()]
    return [term for term in terms if term.weight != 0]


def listened_names(terms: list[WeightedLoss], facts: TeacherFacts) -> list[str]:
    """The submodules that some term listens to, see `vitdfq.models.record`."""
    return [name for term in terms for name in term.loss.listens(facts)]


def merge(preset: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the preset's losses with `changes`: an option changes, a new loss is added."""
    merged = {name: dict(spec) for name, spec in preset.items()}
    for name, change in (changes or {}).items():
        change = {"function": change} if callable(change) or isinstance(change, Loss) else change
        if not isinstance(change, Mapping):
            raise ValueError(f"loss {name!r} takes a mapping such as {{weight: 1.0}} or a function, got {change!r}")
        merged[name] = {**merged.get(name, {}), **change}
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


def _options(function: Callable, num_inputs: int) -> list[str]:
    """Names of the parameters after the inputs that the engine gives."""
    return list(inspect.signature(function).parameters)[num_inputs:]


def _accepted(function: Callable, num_inputs: int, options: dict[str, Any]) -> dict[str, Any]:
    """The functions of a loss share one set of options; each gets those it names."""
    names = _options(function, num_inputs)
    return {name: value for name, value in options.items() if name in names}
