"""A recipe's content with the place of every key, so that an error can say where to look."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from vitdfq.errors import InputError, RecipeError, VitdfqError

Keys = tuple[Any, ...]  # ("calibrate", "steps", 1, "reconstruct", "lr")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass
class Document:
    """Content of a recipe, and for error messages: its name, the line and the literal text of every key, the flags."""

    name: str
    content: dict[str, Any]
    lines: dict[Keys, int] = field(default_factory=dict)
    texts: dict[Keys, str] = field(default_factory=dict)
    flags: dict[Keys, str] = field(default_factory=dict)

    def value(self, keys: Keys) -> Any:
        """What stands under `keys`, or None."""
        found: Any = self.content
        for key in keys:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def where(self, keys: Keys) -> str:
        """The flag or the line that set `keys`, or the nearest key above them."""
        for length in range(len(keys), 0, -1):
            prefix = keys[:length]
            if prefix in self.flags:
                return self.flags[prefix]
            if prefix in self.lines:
                return f"{self.name}:{self.lines[prefix]}"
            below = next((flag for path, flag in self.flags.items() if path[:length] == prefix), None)
            if below:
                return below
        return self.name

    def fail(self, keys: Keys, message: str) -> NoReturn:
        """Raise RecipeError as one line: where, the dotted key, and what is wrong with it."""
        dotted = f"{'.'.join(map(str, keys))}: " if keys else ""
        raise RecipeError(f"{self.where(keys)}: {dotted}{' '.join(message.split())}")

    def yaml_trap(self, keys: Keys, expected: str) -> str | None:
        """If the value has the wrong type only because of how YAML reads it, say what to write."""
        value, text = self.value(keys), self.texts.get(keys)
        if isinstance(value, str) and "number" in expected and NUMBER.fullmatch(value):
            return f"{value!r} is text to YAML; write {_as_yaml_number(value)}"
        if isinstance(value, bool) and "text" in expected:
            return f"{text or str(value).lower()!r} is {str(value).lower()} to YAML; put it in quotes if you mean the text"
        return None

    @contextmanager
    def blaming(self, *keys: Any) -> Iterator[None]:
        """Turn a ValueError of the library inside the block into a RecipeError at `keys`."""
        try:
            yield
        except ValueError as error:
            if isinstance(error, VitdfqError) and not isinstance(error, RecipeError):
                raise
            self.fail(keys, str(error))


def _as_yaml_number(text: str) -> str:
    number = float(text)
    plain = str(int(number)) if number.is_integer() and abs(number) < 1e15 else yaml.safe_dump(number).split()[0]
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return f"{plain} without quotes"
    return f"{plain} or {mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"


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
        raise RecipeError(f"{name}: not YAML ({' '.join(str(error).split())})") from None
    document.content = content
    return document


def _load(text: str) -> tuple[Any, Any]:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
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
    if not equals or not path.strip() or not all(part.strip() for part in path.split(".")):
        raise InputError(f"{flag}: expected section.key=value")
    try:
        _, value = _load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise RecipeError(f"{flag}: the value is not YAML ({problem})") from None
    keys = tuple(path.strip().split("."))
    holder: Any = document.content
    for depth, key in enumerate(keys):
        dotted = ".".join(map(str, keys[:depth]))
        if isinstance(holder, list):
            if not key.isdecimal() or int(key) >= len(holder):
                raise RecipeError(f"{flag}: {'.'.join(keys[:depth])} has the entries 0 to {len(holder) - 1}, not {key!r}")
            key = int(key)
        elif not isinstance(holder, dict):
            raise RecipeError(f"{flag}: {dotted} is {holder!r}, which has no {key!r} in it")
        keys = (*keys[:depth], key, *keys[depth + 1 :])
        if depth == len(keys) - 1:
            holder[key] = value
        elif isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        holder = holder[key]
    document.flags[keys] = flag
    for known in (document.lines, document.texts):
        for old in [old for old in known if old[: len(keys)] == keys]:
            del known[old]
    if not isinstance(value, (dict, list, str)):
        document.texts[keys] = text.strip()


def kind(value: Any) -> str:
    """What a YAML value is, in a reader's words."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
