"""From a preset's name and changes to a checked `Method`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitdfq.common.lookup import lookup
from vitdfq.common.precision import PRECISIONS
from vitdfq.quantization.policy import parse_bits
from vitdfq.synthesis.generator.train import generate
from vitdfq.synthesis.inversion.optimize import invert
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.mix import SELF
from vitdfq.synthesis.objective.regions import MAX_REGIONS
from vitdfq.synthesis.objective.weighted_losses import merge, resolve_losses
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.targets.labels import LABELS

ENGINES = {"images": invert, "generator": generate}
IMAGE_ENGINE_ONLY = ("max_regions", "start", "parametrization")  # a generator renders whole images of one class


def resolve_method(method: str, losses: Mapping[str, Any] | None = None, **changes: Any) -> Method:
    """Return the preset `method` with its losses merged with `losses` and with every change that is not None.

    Args:
        method: a name in `METHODS`.
        losses: `{name: {weight: 1.0, option: value}}`, see `synthesize`.
        changes: fields of `Method` by name.

    Raises:
        ValueError: an unknown method, loss, option or other name (with the nearest choice), a number out of range, or
            `losses` that are no mapping of mappings.
    """
    preset = lookup(method, METHODS, "synthesis method")
    changes = {name: value for name, value in changes.items() if value is not None}
    engine = changes.get("engine", preset.engine)
    lookup(engine, ENGINES, "engine")
    base = replace(preset, lr=preset.lr if engine == preset.engine else None)  # rates of pixels and of weights differ
    if engine == "generator":
        base = replace(base, max_regions=1)
        for name in IMAGE_ENGINE_ONLY:
            if changes.get(name, 1) != 1:
                raise ValueError(
                    f"{name} {changes[name]!r} goes with engine 'images'; a generator renders whole images of one class"
                )
    if "mix" in changes:  # presets named in a call are used whatever the teacher
        changes |= {"skip_unsuitable": False, "rendered": None}
    preset_losses = merge(preset.losses, preset.generator_losses) if engine == "generator" else preset.losses
    feature_losses = merge(preset.feature_losses, losses) if preset.feature_losses else {}
    resolved = replace(base, losses=merge(preset_losses, losses), feature_losses=feature_losses, **changes)
    _check_names(method, resolved)
    _check_numbers(method, resolved)
    return resolved


def _check_names(method: str, resolved: Method) -> None:
    """Raise ValueError for an unknown name, or names that do not go together."""
    if resolved.student is not None:
        parse_bits(resolved.student)
        if resolved.engine != "generator":
            raise ValueError(f"student {resolved.student!r} goes with engine 'generator': they are trained in turn")
    lookup(resolved.labels, LABELS, "label kind")
    lookup(resolved.start, PROCEDURAL, "start")
    lookup(resolved.parametrization, PARAMETRIZATIONS, "parametrization")
    lookup(resolved.precision, PRECISIONS, "precision")
    terms = resolve_losses(resolved.losses)
    if resolved.steps > 0 and not terms:
        raise ValueError(f"method {method!r} has no loss, so {resolved.steps} steps would change nothing")
    for name in resolved.mix:
        lookup(name, METHODS, "synthesis method")


def _check_numbers(method: str, resolved: Method) -> None:
    """Raise ValueError for a number out of range."""
    if resolved.steps < 0:
        raise ValueError(f"steps must not be negative, got {resolved.steps}")
    if resolved.lr is not None and not resolved.lr > 0:
        raise ValueError(f"lr must be positive, got {resolved.lr}")
    if resolved.group_size is not None and resolved.group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {resolved.group_size}")
    if resolved.pairs and (resolved.group_size or 0) % 2:
        raise ValueError(f"method {method!r} makes pairs, so group_size must be even, got {resolved.group_size}")
    if not 1 <= resolved.max_regions <= MAX_REGIONS:
        raise ValueError(f"max_regions must be from 1 to {MAX_REGIONS}, got {resolved.max_regions}")
    if any(not 0 < share < 1 for share in resolved.prune_at):
        raise ValueError(f"prune_at takes shares of the run between 0 and 1, got {list(resolved.prune_at)}")
    if not all(share > 0 for share in resolved.mix.values()) or sum(resolved.mix.values()) >= 1:
        raise ValueError(f"mix takes shares above 0 that leave some for {method!r} itself, got {dict(resolved.mix)}")
    label_range = resolved.label_range
    if label_range is not None and (len(label_range) != 2 or label_range[0] > label_range[1]):
        raise ValueError(f"label_range takes [lower, upper] with lower <= upper, got {label_range}")


def parts_of(method: Method) -> dict[str, Method]:
    """Return the method of each kind of image: `SELF` -> `method`, and every preset of its mix.

    The presets of the mix take the method's steps (procedural ones take none), precision and group size.
    """
    parts = {SELF: method}
    for name in method.mix:
        preset = METHODS[name]
        steps = method.steps if method.steps and preset.steps else preset.steps
        parts[name] = replace(preset, steps=steps, precision=method.precision, group_size=method.group_size, mix={})
    return parts
