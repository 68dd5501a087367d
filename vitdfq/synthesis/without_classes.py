"""What a method is with a teacher that gives features: no labels are drawn, and losses that compare classes are left out.

Most presets add the same two losses to their own: `SHARED`. Without the cross-entropy of it a preset remains what it is, as long as
no loss of its own compares classes. Otherwise, or where it has no other loss, the preset needs a teacher that gives classes.
"""

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
