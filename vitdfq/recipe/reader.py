"""YAML to a Document, and `section.key=value` into it."""

from typing import Any

import yaml

from vitdfq.common.errors import InputError, RecipeError, one_line
from vitdfq.recipe.document import Document, Keys, kind

DEEPEST = 32


def read_document(name: str, text: str) -> Document:
    """Parse YAML, remembering where each key stands.

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
    document.lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        if node.style is None:
            document.texts[keys] = node.value
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*keys, index), document)
    else:
        for key_node, child in node.value:
            path = (*keys, yaml.safe_load(yaml.serialize(key_node)))
            if path in document.lines:
                document.fail(path, f"given twice, here and in line {key_node.start_mark.line + 1}")
            document.lines[path] = key_node.start_mark.line + 1
            _walk(child, path, document)


def set_value(document: Document, assignment: str) -> None:
    """Apply one `section.key=value`; the value is read as YAML.

    Raises:
        InputError: there is no "=".
        RecipeError: the value is not YAML, or the path leads through something that is not a mapping or a list.
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
        key = _key_in(holder, name, keys, flag)
        if isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        holder, keys = holder[key], (*keys, key)
    key = _key_in(holder, names[-1], keys, flag)
    holder[key], keys = value, (*keys, key)
    for known in (document.lines, document.texts):
        for old in [old for old in known if old[: len(keys)] == keys]:
            del known[old]
    document.flags[keys] = flag
    document.texts[keys] = text.strip()


def _key_in(holder: Any, name: str, keys: Keys, flag: str) -> str | int:
    """The key that `name` is in a mapping, or the index that it is in a list."""
    dotted = ".".join(map(str, keys))
    if isinstance(holder, dict):
        return name
    if not isinstance(holder, list):
        raise RecipeError(f"{flag}: {dotted} is {holder!r}, there is no {name!r} in it")
    if not name.isdecimal() or int(name) >= len(holder):
        raise RecipeError(f"{flag}: {dotted} has the entries 0 to {len(holder) - 1}, not {name!r}")
    return int(name)
