"""From a YAML file to a Document, and `section.key=value` into it."""

from pathlib import Path
from typing import Any

import yaml

from vitdfq.common.errors import InputError, RecipeError, one_line
from vitdfq.recipe.document import Document, Keys, kind
from vitdfq.recipe.old_names import current_key

DEEPEST = 32
LARGEST = 256 << 10  # bytes


def read_file(path: Path) -> Document:
    """Read a recipe file.

    Raises:
        InputError: it cannot be read.
        RecipeError: too large, not a text file, or as `read_document`.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise RecipeError(f"{path}: larger than {LARGEST >> 10} KiB; a recipe is a page of text")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a YAML text file ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return read_document(str(path), text)


def read_document(name: str, text: str) -> Document:
    """Parse YAML and note the line of each key.

    Raises:
        RecipeError: not YAML, not a mapping, a key given twice, an alias or a tag.
    """
    document = Document(name, {})
    try:
        node, content = _load(text)
        if not isinstance(content, dict):
            what = "empty" if content is None else f"not a mapping but {kind(content)}"
            raise RecipeError(f"{name}: the recipe is {what}; it must hold sections such as 'model: {{name: ...}}'")
        _walk(node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise RecipeError(f"{name}{f':{mark.line + 1}' if mark else ''}: not YAML ({problem})") from None
    except RecipeError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, control characters, deep nesting
        raise RecipeError(f"{name}: not YAML ({one_line(error, most=None)})") from None
    document.content = content
    return document


def _load(text: str) -> tuple[Any, Any]:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} deep", problem_mark=event.start_mark)
        if isinstance(event, yaml.AliasEvent):  # a page of aliases can stand for gigabytes
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write it out", problem_mark=event.start_mark)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _walk(node: Any, keys: Keys, document: Document) -> None:
    document.places.setdefault(keys, f"{document.name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.ScalarNode):
        if node.style is None:
            document.texts[keys] = node.value
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*keys, index), document)
    else:
        for key_node, child in node.value:
            path = (*keys, yaml.safe_load(yaml.serialize(key_node)))
            line = key_node.start_mark.line + 1
            if path in document.places:
                document.fail(path, f"given twice, here and in line {line}")
            document.places[path] = f"{document.name}:{line}"
            _walk(child, path, document)


def set_value(document: Document, assignment: str) -> None:
    """Apply one `section.key=value`; the value is read as YAML.

    Raises:
        InputError: there is no "=".
        RecipeError: the value is not YAML; the path leads through a scalar; the key is set under its old name and today's.
    """
    flag = f"--set {assignment}"
    path, equals, text = assignment.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        raise InputError(f"{flag}: expected section.key=value")
    try:
        _, value = _load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or one_line(error, most=None)
        raise RecipeError(f"{flag}: the value is not YAML ({problem})") from None
    holder, keys = document.content, ()
    for name in names[:-1]:
        key = current_key(document, (*keys, _key_in(holder, name, keys, flag)), flag)
        if isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        holder, keys = holder[key], (*keys, key)
    key = current_key(document, (*keys, _key_in(holder, names[-1], keys, flag)), flag)
    holder[key], keys = value, (*keys, key)
    earlier = document.flags.get(keys, flag)
    if earlier.partition("=")[0] != flag.partition("=")[0]:
        raise RecipeError(f"{flag}: sets the same key as {earlier}, under another name")
    document.forget(keys)
    document.flags[keys] = flag
    document.texts[keys] = text.strip()


def arguments_of(assignments: list[str]) -> dict[str, Any]:
    """Return the mapping that texts `key=value` describe; raises as `set_value`."""
    document = Document("--set", {})
    for assignment in assignments:
        set_value(document, assignment)
    return document.content


def _key_in(holder: Any, name: str, keys: Keys, flag: str) -> str | int:
    """Return `name` as the key of a mapping, or as the index of a list."""
    dotted = ".".join(map(str, keys))
    if isinstance(holder, dict):
        return name
    if not isinstance(holder, list):
        raise RecipeError(f"{flag}: {dotted} is {holder!r}, there is no {name!r} in it")
    if not name.isdecimal() or int(name) >= len(holder):
        raise RecipeError(f"{flag}: {dotted} has the entries 0 to {len(holder) - 1}, not {name!r}")
    return int(name)
