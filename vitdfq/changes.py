"""What shaped an artefact, kept so that a later run can say what has changed since."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

Inputs = dict[str, Any]  # what shapes an artefact: recipe sections, hashes of weights and images
LONGEST = 200  # characters of a value that is kept as it is; of a longer one its hash is kept
SHOWN = 60  # characters of a value in a message
MOST = 3  # changes in a message
HASH = "sha256:"


def hashed(digest: str) -> str:
    """Mark a hash among inputs: that it changed is said, its digits are not."""
    return HASH + digest


def flat(inputs: Inputs) -> dict[str, Any]:
    """The inputs as JSON gives them back, by dotted key: {"synthesize.steps": 100}."""
    return dict(_leaves(json.loads(json.dumps(inputs, default=str)), ""))


def what_changed(before: object, now: dict[str, Any]) -> str:
    """What differs between two flat inputs, in words; `before` may be anything that was read from a file."""
    if not isinstance(before, dict):
        return "what shapes it has changed"
    keys = [key for key in now if key not in before or before[key] != now[key]] + [key for key in before if key not in now]
    said = [_change(key, before, now) for key in keys[:MOST]] + ([f"{len(keys) - MOST} more"] if len(keys) > MOST else [])
    return "; ".join(said) or "what shapes it has changed"


def _change(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if any(str(held.get(key)).startswith(HASH) for held in (before, now)):
        return f"{key} changed"
    was, is_now = ((_short(held[key]) if key in held else "not set") for held in (before, now))
    return f"{key} was {was}, is {is_now}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
        return
    text = json.dumps(value)
    yield key, value if len(text) <= LONGEST else hashed(hashlib.sha256(text.encode()).hexdigest())
