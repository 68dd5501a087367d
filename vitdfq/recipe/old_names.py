"""Old names in a recipe: read as today's, with one line in the log for each."""

import logging
from collections.abc import Iterator
from typing import Any

from vitdfq.common.renamed import RENAMED_KEYS, RENAMED_LOSSES, RENAMED_OBSERVERS
from vitdfq.recipe.document import Document, Keys

logger = logging.getLogger("vitdfq")
RENAMED = {("synthesize",): RENAMED_KEYS, ("synthesize", "losses"): RENAMED_LOSSES}  # path of a mapping -> its renamed keys


def rename(document: Document) -> None:
    """Replace old keys and old observers in the content.

    Raises:
        RecipeError: an old key stands beside its new name.
    """
    for keys, renamed in RENAMED.items():
        mapping = document.value(keys)
        for old, new in renamed.items():
            if not isinstance(mapping, dict) or old not in mapping:
                continue
            if new in mapping:
                document.fail((*keys, old), f"is the old name of {new}, which is given too; remove one of them")
            _warn(document, (*keys, old), f"is an old name; write {new}")
            document.rename((*keys, old), new)
    warned = set()
    for holder, keys in _observers(document.value(("quantize",)), ("quantize",)):
        old = holder["observer"]
        holder["observer"] = new = RENAMED_OBSERVERS[old]
        if old not in warned:
            _warn(document, keys, f"{old!r} is an old name; write {new}")
        warned.add(old)


def current_key(document: Document, keys: Keys, flag: str) -> Any:
    """Return today's name of the last of `keys`, which come from a `--set` argument."""
    new = RENAMED.get(keys[:-1], {}).get(keys[-1])
    if new is None:
        return keys[-1]
    logger.warning("%s: %s is an old name; write %s", flag, ".".join(map(str, keys)), new)
    return new


def _observers(value: Any, keys: Keys) -> Iterator[tuple[dict[str, Any], Keys]]:
    """Yield each mapping with an old observer, and the path to it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key == "observer" and isinstance(value, dict) and isinstance(child, str) and child in RENAMED_OBSERVERS:
            yield value, (*keys, key)
        yield from _observers(child, (*keys, key))


def _warn(document: Document, keys: Keys, message: str) -> None:
    logger.warning("%s: %s %s", document.where(keys), ".".join(map(str, keys)), message)
