"""The JSON schema of recipes, for editors: made from the signatures and dictionaries that a recipe is checked against.

It says less than the check: conditions between keys (steps beside an effort, for example) and numbers out of range are found
when the recipe is read.
"""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any

from pydantic import TypeAdapter

from vitdfq.calibration import STEPS
from vitdfq.calibration.efforts import EFFORTS
from vitdfq.common.docstrings import arguments_of, first_sentence
from vitdfq.common.precision import PRECISIONS
from vitdfq.common.renamed import RENAMED_KEYS, RENAMED_LOSSES
from vitdfq.evaluation import KnnOptions
from vitdfq.models.families import FAMILIES
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.options import OPTIONS, ROLES, SPELLINGS, Grid, check_option, suits_role
from vitdfq.recipe.document import Keys
from vitdfq.recipe.recipe import OFF, Recipe
from vitdfq.recipe.sections import SECTIONS
from vitdfq.recipe.signature import defaults, keywords
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.resolve import ENGINES
from vitdfq.synthesis.targets.labels import LABELS

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
CHOICES: dict[tuple[str, ...], Collection[str]] = {  # place of a name -> the names that are known there
    ("effort",): EFFORTS,
    ("baselines",): METHODS,
    ("also_bits",): SPELLINGS,
    ("model", "family"): FAMILIES,
    ("synthesize", "method"): METHODS,
    ("synthesize", "labels"): LABELS,
    ("synthesize", "start"): PROCEDURAL,
    ("synthesize", "parametrization"): PARAMETRIZATIONS,
    ("synthesize", "precision"): PRECISIONS,
    ("synthesize", "engine"): ENGINES,
    ("synthesize", "student"): SPELLINGS,
    ("prepare", "steps"): TRANSFORMS,
    ("quantize", "bits"): SPELLINGS,
    ("quantize", "policy"): POLICIES,
    ("calibrate", "effort"): EFFORTS,
    ("compare", "methods"): METHODS,
}
WITHOUT_OPTIONS = {"type": "null"}  # `- gptq:` in a list of steps


def recipe_schema() -> Schema:
    """Return the schema of a recipe's file, JSON Schema 2020-12."""
    schema = _mapping(keywords(Recipe), Recipe, ())
    properties = schema["properties"]
    properties["extends"] = {"type": "string", "description": "The recipe that this one changes: a file, or a name."}
    for name, section in SECTIONS.items():
        content = _mapping(keywords(section.call, "name", "repo"), section.call, (name,))
        _insert_nested(name, content)
        off = [{"enum": list(OFF)}] if name == "evaluate" else [WITHOUT_OPTIONS]
        properties[name] = {"description": properties[name].get("description", ""), "anyOf": [content, *off]}
    for name in ("baselines", "also_bits", "trackers"):
        properties[name] = {"description": properties[name]["description"], "anyOf": [properties[name], {"type": "null"}]}
    return {"$schema": DIALECT, "title": "A recipe of vitdfq", **schema}


def find_key(name: str) -> list[Keys]:
    """Return the paths of the keys of this name, "*" for any entry of a list and any glob.

    Of keys in one section only those that no other one is above: `quantize.bits`, not `quantize.weight.bits`.
    """
    found = list(dict.fromkeys(keys for keys in _paths(recipe_schema(), ()) if keys[-1] == name))
    holders = [keys[:-1] for keys in found if len(keys) > 1]
    return [keys for keys in found if not any(keys[: len(holder)] == holder != keys[:-1] for holder in holders)]


def _paths(schema: Schema, keys: Keys) -> Iterator[Keys]:
    """Yield the path of each key that a schema allows; old names are left out."""
    for name, below in schema.get("properties", {}).items():
        if not below.get("deprecated"):
            yield (*keys, name)
            yield from _paths(below, (*keys, name))
    for below in (schema.get("additionalProperties"), schema.get("items")):
        if isinstance(below, dict):
            yield from _paths(below, (*keys, "*"))
    for member in schema.get("anyOf", []):
        yield from _paths(member, keys)


def _mapping(known: Mapping[str, Any], documented: Any, place: tuple[str, ...]) -> Schema:
    """The schema of a mapping with these keys and types, see `keywords`."""
    descriptions, given = arguments_of(documented), defaults(documented)
    properties = {}
    for name, annotation in known.items():
        if name == "**":
            continue
        schema = _type(annotation, CHOICES.get((*place, name)))
        if name in descriptions:
            schema["description"] = descriptions[name]
        if isinstance(given.get(name), str | int | float | bool):
            schema["default"] = given[name]
        properties[name] = schema
    return {"type": "object", "properties": properties, "additionalProperties": _type(known["**"]) if "**" in known else False}


def _type(annotation: Any, choices: Collection[str] | None = None) -> Schema:
    """The schema of a type; text in it, or in a list of it, is one of the choices."""
    schema = TypeAdapter(annotation).json_schema()
    return schema if choices is None else _with_choices(schema, list(choices))


def _with_choices(schema: Schema, choices: list[str]) -> Schema:
    if schema.get("type") == "string":
        return {key: value for key, value in schema.items() if key != "type"} | {"enum": choices}
    if "anyOf" in schema:
        return schema | {"anyOf": [_with_choices(member, choices) for member in schema["anyOf"]]}
    return schema | {"items": {"enum": choices}} if schema.get("type") == "array" else schema


def _insert_nested(name: str, content: Schema) -> None:
    """Insert the mappings inside a section that have keys and types of their own, and the old names of keys."""
    properties, nested = content["properties"], SECTIONS[name].nested
    if name == "synthesize":
        losses = {
            keys[1]: _mapping(known, LOSSES[keys[1]].function, ()) for keys, known in nested({"losses": dict.fromkeys(LOSSES)})
        }
        losses |= {old: losses[new] | {"deprecated": True} for old, new in RENAMED_LOSSES.items()}
        _narrow(properties["losses"], "object", {"properties": losses, "additionalProperties": False})
        _narrow(properties["mix"], "object", {"propertyNames": {"enum": list(METHODS)}})
        properties |= {old: deepcopy(properties[new]) | {"deprecated": True} for old, new in RENAMED_KEYS.items()}
    elif name == "quantize":
        for role in ROLES:
            _narrow(properties[role], "object", _role(role))
        site = {"bits": _grid_option("bits")} | {role: {"anyOf": [_role(role), {"type": "null"}]} for role in ROLES}
        overrides = {"additionalProperties": {"type": "object", "properties": site, "additionalProperties": False}}
        _narrow(properties["overrides"], "object", overrides)
    elif name == "calibrate":
        one_of_each = {"steps": [{step: {}} for step in STEPS]}
        options = [(keys[-1], _mapping(known, STEPS[keys[-1]].options, ())) for keys, known in nested(one_of_each)]
        steps = [_step(step, schema) for step, schema in options]
        _narrow(properties["steps"], "array", {"items": {"anyOf": [{"enum": list(STEPS)}, *steps]}})
    elif name == "evaluate":
        for (key,), known in nested({"knn": {}}):
            _narrow(properties[key], "object", _mapping(known, KnnOptions, ()))


def _step(name: str, options: Schema) -> Schema:
    """A step with options: a mapping of one key."""
    one_key: Schema = {"type": "object", "required": [name], "additionalProperties": False}
    return one_key | {
        "properties": {name: {"anyOf": [options, WITHOUT_OPTIONS]}},
        "description": first_sentence(STEPS[name].apply),
    }


def _role(role: str) -> Schema:
    """The options of a role, as a mapping."""
    descriptions = {name: {"description": text} for name, text in arguments_of(Grid).items()}
    options = {name: _grid_option(name, role) | descriptions.get(name, {}) for name in OPTIONS[role]}
    return {"type": "object", "properties": options, "additionalProperties": False}


def _grid_option(name: str, role: str | None = None) -> Schema:
    """The values that an option of a grid takes, found by giving some to its check."""
    names = {"quantizer": [name for name in QUANTIZERS if role is None or suits_role(name, role)], "observer": [*OBSERVERS]}
    numbers = range(-1, 34)
    taken = [value for value in (*names.get(name, []), *numbers, True, False, None) if _is_taken(name, value)]
    if numbers[-1] in taken:  # no bound above
        least = min(value for value in taken if value is not None)
        return {"anyOf": [{"type": "integer", "minimum": least}, *([{"type": "null"}] if None in taken else [])]}
    return {"enum": taken}


def _is_taken(name: str, value: Any) -> bool:
    try:
        check_option(name, value)
    except ValueError:
        return False
    return True


def _narrow(schema: Schema, kind: str, content: Schema) -> None:
    """Add to the member of a schema that is of this JSON type what its content is; in place."""
    for member in schema.get("anyOf", [schema]):
        if member.get("type") == kind:
            member.update(content)
