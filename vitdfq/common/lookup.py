"""Look a name up in a dict literal, or say what the choices are."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(name: str, choices: Mapping[str, T], what: str) -> T:
    """Return `choices[name]`.

    Raises:
        ValueError: the name is unknown; the message names the nearest choice and all choices.
    """
    if name in choices:
        return choices[name]
    raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, choices)}; choices: {', '.join(sorted(choices))}")


def did_you_mean(name: str, choices) -> str:
    """Return ", did you mean 'x'?" when a choice is close to `name`, else an empty string."""
    near = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
