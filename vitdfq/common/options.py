"""Options as frozen dataclasses: a default stands once, in the field; a value is checked once, in `__post_init__`."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from vitdfq.common.lookup import did_you_mean

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {  # annotation -> its name for people, what may stand for it
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str,)),
    dict: ("a mapping", (Mapping,)),
    list: ("a list", (list, tuple)),
    type(None): ("None", (type(None),)),
}
LONGEST_PATH = 200  # characters of a path in a message: globs may come out of a stranger's file


class OptionError(ValueError):
    """An option, somewhere inside nested options, that cannot be used.

    Attributes:
        keys: the path to it, ("overrides", "head*", "weight", "bits").
        reason: the value, and the choices.
    """

    def __init__(self, keys: tuple[str, ...], reason: str) -> None:
        path = ".".join(map(str, keys))
        super().__init__(f"{path if len(path) <= LONGEST_PATH else f'{path[:LONGEST_PATH]} ...'}: {reason}")
        self.keys, self.reason = keys, reason


class UnknownOptionError(OptionError):
    """An option that does not exist at the end of `keys`; `choices` do."""

    def __init__(self, keys: tuple[str, ...], choices: Collection[str]) -> None:
        super().__init__(keys, unknown_key(keys[-1], choices))
        self.choices = choices


def unknown_key(key: Any, choices: Collection[str]) -> str:
    """The reason of an error about a key that does not exist."""
    near = did_you_mean(key, choices) if isinstance(key, str) and len(key) <= LONGEST_PATH else ""
    return f"unknown key{near}; choices: {', '.join(choices)}"


def build_options(kind: type[T], given: Any, where: str) -> T:
    """Return `kind(**given)`.

    Args:
        kind: a dataclass of options.
        given: option -> value; None means no option.
        where: what the options belong to; every message starts with it.

    Raises:
        ValueError: `given` is no mapping, has an unknown option, or a value that the dataclass refuses.
    """
    if given is None:
        return kind()
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: options is {given!r}; expected a mapping {{option: value}}")
    known = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]
    for option in given:
        if option not in known:
            near = did_you_mean(option, known)
            raise ValueError(f"{where}: unknown option {option!r}{near}; choices: {', '.join(known) or 'none'}")
    try:
        options = kind(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except (TypeError, AttributeError):  # an option of another type, which the dataclass did not expect
        _check_types(kind, given, where)
        raise
    _check_types(kind, given, where)
    return options


def _check_types(kind: type[Any], given: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a value that is not of its field's type; what is inside lists and mappings is not looked at."""
    hints = get_type_hints(kind)
    for option, value in given.items():
        if not any(_fits(value, choice) for choice in _choices(hints[option])):
            expected = " or ".join(KINDS[choice][0] for choice in _choices(hints[option]) if choice in KINDS)
            raise ValueError(f"{where}: {option} is {value!r}; expected {expected}")


def _choices(hint: Any) -> list[Any]:
    """The types of an annotation, without what is inside lists and mappings."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [get_origin(choice) or choice for choice in choices]


def _fits(value: Any, choice: Any) -> bool:
    if choice not in KINDS:  # the dataclass checks what it alone knows
        return True
    return isinstance(value, KINDS[choice][1]) and (choice is bool or not isinstance(value, bool))


def changed_options(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults, by name: what a recipe has to say."""
    default = type(options)(**{field.name: getattr(options, field.name) for field in fields(options) if _is_required(field)})
    return {
        field.name: value for field in fields(options) if (value := getattr(options, field.name)) != getattr(default, field.name)
    }


def check_counts(options: Any, *names: str) -> None:
    """Raise ValueError unless each of these options is a whole number of at least 1."""
    for name in names:
        check_count(getattr(options, name), f"{name} ")


def check_rates(options: Any, *names: str) -> None:
    """Raise ValueError if one of these options is negative, or not a number."""
    for name in names:
        if not (value := getattr(options, name)) >= 0:
            raise ValueError(f"{name} is {value!r}; it must be at least 0")


def check_count(value: Any, where: str = "") -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}{value!r} is not a whole number of at least 1")


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def takes_options(kind: type[Any]) -> Callable[[F], F]:
    """Decorate a function that ends in `**keywords`: help and completion show the dataclass' fields with their defaults."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        hints = get_type_hints(kind)
        options = [
            inspect.Parameter(field.name, keyword_only, default=field.default, annotation=hints[field.name])
            for field in fields(kind)
        ]
        named = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        positional = [parameter for parameter in named if parameter.kind is not keyword_only]
        others = [parameter for parameter in named if parameter.kind is keyword_only]
        function.options_class = kind  # type: ignore[attr-defined]
        function.__signature__ = signature.replace(parameters=[*positional, *options, *others])  # type: ignore[attr-defined]
        return function

    return decorate
