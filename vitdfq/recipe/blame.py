"""From the text of a ValueError to the key of a recipe that caused it.

The functions that a recipe calls check their own arguments. They know nothing of recipes, but a good message names the argument
or quotes its value: "steps must not be negative, got -3", "overrides['head*']: bits is 9; choices: 2 to 8".
"""

import re
from collections.abc import Iterator
from typing import Any

SUGGESTIONS = re.compile(r", did you mean|; choices|; timm has")  # what follows names other keys
WHOLE = 100  # counts for a mapping or list that is quoted: more than its path and its parts can
LOCATOR = re.compile(r"(?:step '[^']*'|\w+(?:\[[^\]]*\])?(?:\.\w+)*): ")  # at the start of a message


def named_keys(message: str, value: Any) -> tuple[Any, ...]:
    """Return the path to the part of `value` that the message is about, () if it names none.

    A path counts its keys that occur in the message as words, and its values that are quoted. The highest count wins, then the
    first to be named, then the shorter path.
    """
    text = SUGGESTIONS.split(message)[0]
    paths = list(_named(text, value, (), 0))
    return min(paths, key=lambda path: path[:2])[2] if paths else ()


def _named(text: str, value: Any, keys: tuple[Any, ...], count: int) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Yield (minus the count, position of the last key or value, path) of each part that is named."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        path, quoted = (*keys, key), _quoted(text, child)
        named = [place for place in (_position(text, key) if isinstance(key, str) else -1, quoted) if place >= 0]
        if quoted >= 0 and isinstance(child, dict | list):
            yield -WHOLE, quoted, path
            continue
        if named:
            yield -count - len(named), min(named), path
        yield from _named(text, child, path, count + len(named))


def _quoted(text: str, value: Any) -> int:
    """Return the position of a value as Python writes it, or -1; None, True and the like identify no key."""
    return -1 if value is None or isinstance(value, bool) or value in ("", [], {}) else _position(text, repr(value))


def _position(text: str, word: str) -> int:
    if word not in text:
        return -1
    match = re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", text)
    return match.start() if match else -1


def without_locator(message: str, keys: tuple[Any, ...]) -> str:
    """Return the message without a first word that only repeats keys, as in "weight: bits is 9" at quantize.weight.bits."""
    locator = LOCATOR.match(message)
    if locator and any(isinstance(key, str) and _position(locator[0], key) >= 0 for key in keys):
        return message[locator.end() :]
    return message
