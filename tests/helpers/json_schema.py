"""Whether a value fits a JSON schema, for the words that `vitdfq schema` uses; another word is an error."""

from typing import Any

TYPES = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
WORDS_OF = {  # word -> the types that it is about
    "minimum": (int, float),
    "items": (list,),
    **dict.fromkeys(("required", "properties", "propertyNames", "additionalProperties"), (dict,)),
}
ANNOTATIONS = {"$schema", "title", "description", "default", "deprecated"}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value of JSON fits the schema."""
    return all(_fits_word(value, word, content, schema) for word, content in schema.items() if word not in ANNOTATIONS)


def _fits_word(value: Any, word: str, content: Any, schema: dict[str, Any]) -> bool:
    if word == "type":
        return _has_type(value, content)
    if word == "enum":
        return any(type(value) is type(choice) and value == choice for choice in content)
    if word == "anyOf":
        return any(fits(value, member) for member in content)
    if not isinstance(value, WORDS_OF.get(word, (object,))):
        return True  # the word says nothing of a value of another type
    if word == "minimum":
        return value >= content
    if word == "items":
        return all(fits(entry, content) for entry in value)
    if word == "required":
        return set(content) <= set(value)
    if word == "properties":
        return all(fits(value[name], inner) for name, inner in content.items() if name in value)
    if word == "propertyNames":
        return all(fits(name, content) for name in value)
    if word == "additionalProperties":
        others = [inner for name, inner in value.items() if name not in schema.get("properties", {})]
        return not others if content is False else content is True or all(fits(inner, content) for inner in others)
    raise AssertionError(f"the schema has a word that this helper does not know: {word}")


def _has_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])
