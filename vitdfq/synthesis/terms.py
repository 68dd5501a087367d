"""Weighted losses: from `{name: {weight, option...}}` to values a view."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitdfq.pick import did_you_mean, pick
from vitdfq.synthesis.context import Draws, Loss, SynthContext, TeacherFacts
from vitdfq.synthesis.losses import LOSSES


@dataclass(frozen=True)
class Term:
    """One summand of the objective."""

    name: str
    loss: Loss
    weight: float
    options: dict[str, Any]

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


def resolve_terms(losses: Mapping[str, Any]) -> list[Term]:
    """Check names, weights and options before any work; terms of weight 0 are left out.

    Raises:
        ValueError: an unknown loss or option (with the nearest choice), or a weight that is no finite number.
    """
    terms = [_resolve(name, spec) for name, spec in losses.items()]
    return [term for term in terms if term.weight != 0]


def merge(preset: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the preset's losses with `changes`: an option changes, a new loss is added."""
    merged = {name: dict(spec) for name, spec in preset.items()}
    for name, change in (changes or {}).items():
        change = {"function": change} if callable(change) or isinstance(change, Loss) else change
        if not isinstance(change, Mapping):
            raise ValueError(f"loss {name!r} takes a mapping such as {{weight: 1.0}} or a function, got {change!r}")
        merged[name] = {**merged.get(name, {}), **change}
    return merged


def _resolve(name: str, spec: Mapping[str, Any]) -> Term:
    options = dict(spec)
    function = options.pop("function", None)
    weight = options.pop("weight", 1.0)
    if function is None:
        loss = pick(name, LOSSES, "loss")
    else:
        loss = function if isinstance(function, Loss) else Loss(function)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"the weight of loss {name!r} must be a finite number, got {weight!r}")
    known = _options(loss.function, 1) + (_options(loss.draw, 2) if loss.draw else [])
    for option in options:
        if option not in known:
            choices = ["weight", *known]
            near = did_you_mean(option, choices)
            raise ValueError(f"unknown option {option!r} of loss {name!r}{near}; choices: {', '.join(choices)}")
    return Term(name, loss, float(weight), options)


def _options(function: Callable, num_inputs: int) -> list[str]:
    """Names of the parameters after the inputs that the engine gives."""
    return list(inspect.signature(function).parameters)[num_inputs:]


def _accepted(function: Callable, num_inputs: int, options: dict[str, Any]) -> dict[str, Any]:
    """A loss and its `draw` share one set of options; each gets those it names."""
    names = _options(function, num_inputs)
    return {name: value for name, value in options.items() if name in names}
