"""Check keyword arguments against the function or dataclass that receives them: unknown keys, wrong types."""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitdfq.recipe.document import Document, Keys, kind

STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # text is not turned into numbers, nor numbers into truth values
IN_YAML = (str, int, float, bool, list, dict, Mapping, type(None), Any)
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "none_required": "null",
}


def keywords(target: Callable[..., Any], *positional: str) -> dict[str, Any]:
    """Return name -> annotation of the arguments that a recipe may give, as far as YAML can express them.

    Args:
        target: a function, whose keyword-only parameters count, or a dataclass, whose fields count.
        positional: further parameters of the function. A `**rest` parameter is returned under the name "**".
    """
    hints = get_type_hints(target)
    known: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        annotation = hints.get(name) or (Any if parameter.annotation is parameter.empty else parameter.annotation)
        if parameter.kind is parameter.VAR_KEYWORD:
            known["**"] = annotation
        elif is_dataclass(target) or parameter.kind is parameter.KEYWORD_ONLY or name in positional:
            expressible = _in_yaml(annotation)
            if expressible is not None:
                known[name] = expressible
    return known


def defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Return name -> default of the parameters of a function, or the fields of a dataclass, that have one."""
    parameters = inspect.signature(target).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def check_keywords(document: Document, keys: Keys, known: Mapping[str, Any]) -> None:
    """Check the mapping at `keys` against name -> annotation.

    Raises:
        RecipeError: a key is unknown or a value has the wrong type.
    """
    given = document.value(keys)
    check_value(document, keys, dict[Any, Any])
    for key in given:
        if key not in known and ("**" not in known or not isinstance(key, str)):
            document.fail_unknown((*keys, key), [name for name in known if name != "**"])
    for key in given:
        check_value(document, (*keys, key), known.get(key, known.get("**")))


def check_value(document: Document, keys: Keys, annotation: Any) -> None:
    """Check the value at `keys` against a type, strictly; an int may stand for a float.

    Raises:
        RecipeError: it does not fit; with the value and the expected type.
    """
    value = document.value(keys)
    try:
        TypeAdapter(annotation, config=STRICT).validate_python(value)
    except ValidationError as error:
        deepest: dict[Keys, list[str]] = {}
        for entry in error.errors(include_url=False):
            place = _inside(value, entry["loc"])
            deepest.setdefault(place, []).append(EXPECTED.get(entry["type"], entry["msg"]))
        place = max(deepest, key=len)
        keys = (*keys, *place)
        value, expected = document.value(keys), " or ".join(dict.fromkeys(deepest[place]))
        trap = document.yaml_trap(keys, expected)
        document.fail(keys, trap or f"{value!r} is {kind(value)}; expected {expected}")


def check_plain(document: Document, keys: Keys = ()) -> None:
    """Check that the content is what YAML and JSON both can hold: no dates, sets, objects or huge numbers; keys are text.

    Raises:
        RecipeError: at the first other value.
    """
    value = document.value(keys)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                document.fail_unknown((*keys, key))
            check_plain(document, (*keys, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            check_plain(document, (*keys, index))
    elif isinstance(value, int) and abs(value) >= 2**63:
        document.fail(keys, "a whole number of more than 63 bits")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        document.fail(keys, f"'{value}' is {kind(value)}; put it in quotes if you mean text")


def _in_yaml(annotation: Any) -> Any:
    """Return the members of a union that YAML can express; None if there are none but null."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in map(_in_yaml, get_args(annotation)) if member is not None]
        if all(member is type(None) for member in members):
            return None
        return Union[tuple(members)]  # noqa: UP007  (a tuple of types, known only here)
    if (get_origin(annotation) or annotation) in IN_YAML or get_origin(annotation) is Literal:
        return annotation
    return None


def _inside(value: Any, location: tuple[int | str, ...]) -> Keys:
    """Return the part of pydantic's location that leads into the value (it also names members of unions)."""
    place: list[Any] = []
    for step in location:
        if isinstance(value, (dict, list)):
            try:
                value = value[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                continue
            place.append(step)
    return tuple(place)
