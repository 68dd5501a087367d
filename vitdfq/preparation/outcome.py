"""What a transform did, or why it did nothing; and all of that in one line."""

from collections.abc import Sequence
from typing import NamedTuple


class Outcome(NamedTuple):
    """The answer of one transform."""

    verb: str  # "rotated", "folded"
    what: str  # "the residual stream of 12 blocks"
    why_not: str | None = None  # why nothing was changed; None: it was changed

    @property
    def changed(self) -> bool:
        """Whether the transform changed the model."""
        return self.why_not is None


def in_one_line(outcomes: Sequence[Outcome]) -> str:
    """Return "rotated: heads, MLPs; not rotated: the residual stream, because ..."; an empty text for no outcomes."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for verb, what, why_not in sorted(outcomes, key=lambda outcome: not outcome.changed):
        groups.setdefault((verb, why_not), []).append(what)
    return "; ".join(
        f"{verb}: {', '.join(whats)}" if why_not is None else f"not {verb}: {', '.join(whats)}, because {why_not}"
        for (verb, why_not), whats in groups.items()
    )
