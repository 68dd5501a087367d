"""A recipe's content with the place of every key, so that an error can say where to look."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from vitdfq.common.errors import RecipeError, VitdfqError

Keys = tuple[Any, ...]  # ("calibrate", "steps", 1, "reconstruct", "lr")
LONGEST = 2000  # characters of a message: it may quote what the recipe says, and every choice
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
            if prefix in self.lines:  # a flag removes the lines of what it sets
                return f"{self.name}:{self.lines[prefix]}"
            flag = next((flag for path, flag in self.flags.items() if path[:length] == prefix), None)
            if flag:
                return flag
        return self.name

    def fail(self, keys: Keys, message: str) -> NoReturn:
        """Raise RecipeError as one line: where, the dotted key, and what is wrong with it."""
        dotted = f"{_cut('.'.join(map(str, keys)), 200)}: " if keys else ""
        raise RecipeError(f"{_cut(self.where(keys), 500)}: {dotted}{_cut(' '.join(message.split()), LONGEST)}")

    def yaml_trap(self, keys: Keys, expected: str) -> str | None:
        """If the value has the wrong type only because of how YAML reads it, say what to write."""
        value, text = self.value(keys), self.texts.get(keys)
        if isinstance(value, str) and "number" in expected and len(value) < 50 and NUMBER.fullmatch(value):
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


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 2 :]}"


def _as_yaml_number(text: str) -> str:
    number = float(text)
    plain = str(int(number)) if number.is_integer() and abs(number) < 1e15 else yaml.safe_dump(number).split()[0]
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return f"{plain} without quotes"
    return f"{plain} or {mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"


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
