"""A recipe's content with the place of every key, so that an error can point to it."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from vitdfq.common.errors import RecipeError, VitdfqError
from vitdfq.common.options import OptionError, UnknownOptionError, unknown_key
from vitdfq.recipe.blame import named_keys, without_locator

Keys = tuple[Any, ...]  # ("calibrate", "steps", 1, "reconstruct", "lr")
LONGEST = 2000  # characters of a message: it may quote the recipe and list all choices
MOST_PLACES = 4  # named as right for a key
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class LocatedError(RecipeError):
    """A RecipeError whose message begins with the file and line, or the flag, that it is about."""


@dataclass
class Document:
    """The content of a recipe, and what error messages need.

    Attributes:
        name: the file, or "recipe" for a dict.
        content: mappings, lists and scalars.
        places: "file:line" of each key; with a base recipe keys come from several files.
        texts: how a scalar is spelled in the file, before YAML gives it a type.
        flags: the `--set` argument that set a key.
        find_key: returns the paths that a recipe can have to a key of this name, "*" for entries of any name.
    """

    name: str
    content: dict[str, Any]
    places: dict[Keys, str] = field(default_factory=dict)
    texts: dict[Keys, str] = field(default_factory=dict)
    flags: dict[Keys, str] = field(default_factory=dict)
    find_key: Callable[[str], list[Keys]] = field(default=lambda name: [])

    def value(self, keys: Keys) -> Any:
        """Return the value under `keys`, or None."""
        value: Any = self.content
        for key in keys:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def where(self, keys: Keys) -> str:
        """Return the flag or the line that set `keys`, or the nearest key above them."""
        for length in range(len(keys), 0, -1):
            prefix = keys[:length]
            if prefix in self.places:  # a flag removes the places of the keys it sets
                return self.places[prefix]
            flag = next((flag for path, flag in self.flags.items() if path[:length] == prefix), None)
            if flag:
                return flag
        return self.name

    def forget(self, keys: Keys) -> None:
        """Remove place and text of `keys` and of all keys below, which are about to be replaced."""
        for known in (self.places, self.texts):
            for path in [path for path in known if path[: len(keys)] == keys]:
                del known[path]

    def rename(self, keys: Keys, name: str) -> None:
        """Give the last of `keys` another name; its position, value and place stay."""
        holder, length = self.value(keys[:-1]), len(keys)
        items = [(name if key == keys[-1] else key, value) for key, value in holder.items()]
        holder.clear()
        holder.update(items)
        for known in (self.places, self.texts, self.flags):
            for path in [path for path in known if path[:length] == keys]:
                known[(*keys[:-1], name, *path[length:])] = known.pop(path)

    def fail(self, keys: Keys, message: str) -> NoReturn:
        """Raise LocatedError as one line: the place, the dotted key, and the reason."""
        dotted = f"{_cut('.'.join(map(str, keys)), 200)}: " if keys else ""
        raise LocatedError(f"{_cut(self.where(keys), 500)}: {dotted}{_cut(' '.join(message.split()), LONGEST)}")

    def fail_unknown(self, keys: Keys, choices: Collection[str] = ()) -> NoReturn:
        """Raise LocatedError about a key that is none of the choices, or that YAML does not read as text."""
        key = keys[-1]
        if not isinstance(key, str):
            trap = " (as it does on, off, yes and no)" if isinstance(key, bool) else ""
            self.fail(keys, f"unknown key: YAML reads it as {kind(key)}{trap}; put it in quotes if you mean text")
        if places := self.find_key(key):
            self.fail(keys, f"unknown key; {_right_place(keys, places)}; choices here: {', '.join(choices)}")
        self.fail(keys, unknown_key(key, choices))

    def yaml_trap(self, keys: Keys, expected: str) -> str | None:
        """If the value has a wrong type only because of how YAML reads it, return how to write it."""
        value, text = self.value(keys), self.texts.get(keys)
        if isinstance(value, str) and "number" in expected and len(value) < 50 and NUMBER.fullmatch(value):
            return f"{value!r} is text to YAML; write {_as_yaml_number(value)}"
        if isinstance(value, bool) and "text" in expected:
            return f"{text or str(value).lower()!r} is {str(value).lower()} to YAML; put it in quotes if you mean the text"
        return None

    @contextmanager
    def blaming(self, *keys: Any) -> Iterator[None]:
        """Turn a ValueError of the library inside the block into a LocatedError at the deepest key that it names below `keys`."""
        try:
            yield
        except LocatedError:
            raise
        except ValueError as error:
            if isinstance(error, VitdfqError) and not isinstance(error, RecipeError):
                raise
            if isinstance(error, UnknownOptionError):
                self.fail_unknown((*keys, *error.keys), error.choices)
            if isinstance(error, OptionError):
                self.fail((*keys, *error.keys), error.reason)
            below = named_keys(str(error), self.value(keys))
            self.fail((*keys, *below), without_locator(str(error), (*keys, *below)))


def _right_place(keys: Keys, places: list[Keys]) -> str:
    """Name the places of a key that stands at `keys`: those in the same section first, then the least nested."""
    nearest = sorted(places, key=lambda place: (place[0] != keys[0], len(place)))
    names = [".".join(place) if len(place) > 1 else "the top level" for place in nearest[:MOST_PLACES]]
    if len(nearest) > MOST_PLACES:
        names.append(f"one of {len(nearest) - MOST_PLACES} more")
    last = names.pop()
    return f"its place is {', '.join(names)} or {last}" if names else f"its place is {last}"


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
    """Return the kind of a YAML value in plain words."""
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
