"""What a method is with a teacher that gives features: no labels are drawn, and losses that compare classes are left out.

Most presets add the same two losses, `SHARED`, to losses of their own. Without the cross-entropy among them a preset remains what
it is, as long as no loss of its own compares classes. Otherwise, or without losses of its own, it needs classes.
"""

from dataclasses import replace

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, resolve_losses
from vitdfq.synthesis.presets import METHODS, SHARED, Method


def losses_for(method: Method, facts: TeacherFacts) -> list[WeightedLoss]:
    """Return the losses that a method has with a teacher.

    Raises:
        ValueError: the teacher gives features, and the method needs classes.
    """
    if facts.num_classes:
        return resolve_losses(method.losses)
    require_no_classes("of these losses", method)
    return [weighted for weighted in _of_features(method) if not weighted.loss.needs_classes]


def with_possible_mix(method: Method, facts: TeacherFacts) -> Method:
    """Return `method` without the presets of its `mix` that need classes, where the teacher gives features; other shares grow.

    A method that does not set `skip_unsuitable` keeps them.
    """
    if facts.num_classes or not method.skip_unsuitable:
        return method
    return with_mix(method, {name: share for name, share in method.mix.items() if why_classes(METHODS[name]) is None})


def with_mix(method: Method, remaining: dict[str, float]) -> Method:
    """Return `method` with these presets of its `mix`, in the same proportions to each other and to the method's own images."""
    total = 1 - sum(method.mix.values()) + sum(remaining.values())
    return replace(method, mix={name: share / total for name, share in remaining.items()})


def left_out(method: Method) -> list[str]:
    """Return the names of the losses that a method does without where the teacher gives features."""
    return [weighted.name for weighted in _of_features(method) if weighted.loss.needs_classes]


def require_no_classes(name: str, method: Method) -> None:
    """Raise ValueError where a method needs a teacher that gives classes; the message calls it by `name`."""
    if reason := why_classes(method):
        possible = ", ".join(sorted(name for name, preset in METHODS.items() if why_classes(preset) is None))
        raise ValueError(f"method {name} needs classes ({reason}), and the teacher gives features; choices: {possible}")


def why_classes(method: Method) -> str | None:
    """Return why a method needs a teacher that gives classes, or None: it works with features."""
    own = [weighted for weighted in _of_features(method) if weighted.name not in SHARED]
    if comparing := [weighted.name for weighted in own if weighted.loss.needs_classes]:
        return f"{' and '.join(comparing)} compare{'s' * (len(comparing) == 1)} them"
    if (without := left_out(method)) and not own:
        return f"without {' and '.join(without)} no loss reads the teacher"
    return None


def _of_features(method: Method) -> list[WeightedLoss]:
    """The losses for a teacher that gives features, those that compare classes included."""
    return resolve_losses(method.feature_losses or method.losses)
