"""`extends`: a recipe that changes another one, its base."""

from pathlib import Path
from typing import Any

from vitdfq.common.lookup import did_you_mean
from vitdfq.recipe.document import Document
from vitdfq.recipe.find import packaged_file, packaged_names
from vitdfq.recipe.old_names import rename
from vitdfq.recipe.reader import read_file
from vitdfq.recipe.signature import check_value

MOST_BASES = 8


def with_bases(document: Document, file: Path | None) -> Document:
    """Return the document on top of the recipe that its key `extends` names, and that on top of its own base.

    Mappings are merged key by key; lists and scalars replace those of the base. `name` stays the document's own. A downloaded
    recipe must not reach other files of the disk: a base is a packaged recipe, by name, or a file in the recipe's folder.

    Args:
        document: as read; old names are replaced here.
        file: of the document, None for a dict.

    Raises:
        RecipeError: no such base, one outside the folder, a cycle, or an error in a base.
    """
    return _extended(document, file, [] if file is None else [file.resolve()])


def _extended(document: Document, file: Path | None, chain: list[Path]) -> Document:
    rename(document)
    if "extends" not in document.content:
        return document
    check_value(document, ("extends",), str)
    with document.blaming("extends"):  # a path with a null character
        base_file = _base(document, file.parent if file else None)
    if base_file.resolve() in chain:
        cycle = " -> ".join(path.name for path in [*chain, base_file])
        document.fail(("extends",), f"a recipe cannot extend itself: {cycle}")
    if len(chain) > MOST_BASES:
        document.fail(("extends",), f"more than {MOST_BASES} bases")
    base = _extended(read_file(base_file), base_file, [*chain, base_file.resolve()])
    del document.content["extends"]
    return _merged(base, document)


def _base(document: Document, folder: Path | None) -> Path:
    given = document.content["extends"]
    if not given.endswith((".yaml", ".yml")):
        path = packaged_file(given)
        if path is None:
            near = did_you_mean(given, packaged_names())
            document.fail(("extends",), f"no packaged recipe {given!r}{near}; a file in the recipe's folder needs its .yaml")
        return path
    if folder is None:
        document.fail(("extends",), f"{given!r}: a dict has no folder, so it extends packaged recipes only, by name")
    path = folder / given
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            document.fail(("extends",), f"{given!r} lies outside the recipe's folder")
        if not path.is_file():
            document.fail(("extends",), f"{given!r}: no such file in the recipe's folder")
    except OSError as error:  # a name that is too long, a loop of links
        document.fail(("extends",), f"{given!r}: {error.strerror}")
    return path


def _merged(base: Document, over: Document) -> Document:
    """Return `over` on top of `base`; every key keeps the place where it stands."""
    base.content.pop("name", None)
    base.forget(("name",))
    _merge(base.content, over.content)
    return Document(over.name, base.content, base.places | over.places, base.texts | over.texts)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
