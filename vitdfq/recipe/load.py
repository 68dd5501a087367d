"""load_recipe(): from a file, a name or a dict to a checked Recipe."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vitdfq.recipe.document import Document, Keys
from vitdfq.recipe.extends import with_bases
from vitdfq.recipe.find import find_recipe
from vitdfq.recipe.old_names import rename
from vitdfq.recipe.reader import read_file, set_value
from vitdfq.recipe.recipe import CALLS, OFF, Recipe
from vitdfq.recipe.signature import check_keywords, check_plain, keywords

logger = logging.getLogger(__name__)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; no weights, no images, no network.

    Args:
        source: path of a YAML file, name of a packaged recipe, or the content as a dict.
        overrides: texts `section.key=value`, values as YAML, applied before the check; numbers reach into lists, as in
            `calibrate.steps.0=observe`.

    Raises:
        InputError: no such file; an override without "=".
        RecipeError: not YAML, an unknown key or name, a wrong type, a number out of range; one line with file and line.
    """
    if isinstance(source, Mapping):
        file, document = None, Document("recipe", copy.deepcopy(dict(source)))
    else:
        document = read_file(file := find_recipe(source))
    document = with_bases(document, file)
    document.find_key = _find_key
    for assignment in overrides:
        set_value(document, assignment)
    rename(document)
    check_plain(document)
    content = document.content
    if "evaluate" in content and content["evaluate"] in OFF:
        content["evaluate"] = {"dataset": None}
    if "extends" in content:
        document.fail(("extends",), "belongs in the recipe's file; --set changes the recipe after its bases were read")
    for known in fields(Recipe):
        if callable(known.default_factory) and content.get(known.name) is None:
            content[known.name] = known.default_factory()
    content.setdefault("name", file.stem if file else "recipe")
    check_keywords(document, (), keywords(Recipe) | {"extends": str})

    from vitdfq.quantization.policy import DEFAULT_BITS  # late: torch, timm and all parts of the package
    from vitdfq.recipe.sections import check_sections, takes_seed

    if content.get("effort") is not None and content["calibrate"].get("steps") is None:
        content["calibrate"].setdefault("effort", content["effort"])
    check_sections(document)
    if "method" not in content["synthesize"] and content["synthesize"].get("images") is None:
        from vitdfq.recipe.default_images import default_images, describe

        given = {key: value for key, value in content["synthesize"].items() if value is not None}
        bits = [content["quantize"].get("bits", DEFAULT_BITS), *content["also_bits"]]
        content["synthesize"], reason = default_images(given, *bits)
        logger.info(f"synthesize: {describe(content['synthesize'])}, since the recipe names no method; {reason}")
    for section in CALLS:
        if takes_seed(section):
            content[section].setdefault("seed", content.get("seed", 0))
    with document.blaming():
        return Recipe(**content)


def _find_key(key: str) -> list[Keys]:
    from vitdfq.recipe.schema import find_key  # late: as above

    return find_key(key)
