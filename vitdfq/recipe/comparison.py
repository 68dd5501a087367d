"""The conditions under which recipes fit in one table, and its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitdfq.common.errors import RecipeError
from vitdfq.recipe.recipe import Recipe
from vitdfq.recipe.sections import SECTIONS, Comparison
from vitdfq.recipe.signature import defaults
from vitdfq.synthesis import METHODS
from vitdfq.synthesis.presets import OWN

SHARED = ("model", "prepare", "quantize", "calibrate", "evaluate")
KEPT = ("num_images", "batch_size", "precision", "seed")  # of the recipe's synthesis, for a row with another method


@dataclass(frozen=True)
class Row:
    """One line of the table: a title, and the keyword arguments of `synthesize`; None: real images."""

    title: str
    section: dict[str, Any] | None


def check_agreement(recipes: Sequence[Recipe]) -> None:
    """Check that recipes differ in their images only.

    Raises:
        RecipeError: with the first key that differs, or a name that two recipes share.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RecipeError(f"two recipes are called {twice!r}: a row is called by its recipe; give them different names")
    first = recipes[0]
    for other in recipes[1:]:
        for section in SHARED:
            _agree(section, (first.name, _complete(first, section)), (other.name, _complete(other, section)))
    comparing = [recipe for recipe in recipes if recipe.compare]
    for other in comparing[1:]:
        _agree("compare", (comparing[0].name, _shared_options(comparing[0])), (other.name, _shared_options(other)))


def comparison_of(recipes: Sequence[Recipe]) -> Comparison:
    """Return the seeds and real images of the whole table: those of the first recipe with a section `compare`."""
    section = next((recipe.compare for recipe in recipes if recipe.compare), {})
    options: dict[str, Any] = {"seeds": [recipes[0].seed]} | {key: value for key, value in section.items() if value is not None}
    return Comparison(**options)


def rows_of(recipes: Sequence[Recipe]) -> list[Row]:
    """Return the table's rows in the order of the recipes and their methods; equal images make one row.

    The row of a recipe's own method is called by the method if there is one recipe, else by the recipe. A recipe with images of
    its own always has a row of them.
    """
    rows: list[Row] = []
    for recipe in recipes:
        own = recipe.synthesis.method
        methods = recipe.compare.get("methods") or list(dict.fromkeys([own, *recipe.baselines]))
        for method in [OWN, *methods] if own == OWN and OWN not in methods else methods:
            section = recipe.synthesize | {"method": own} if method == own else _section(recipe, method)
            title = recipe.name if method == own and len(recipes) > 1 else method
            if any(row.title == title and row.section != section for row in rows):
                title = f"{method} ({recipe.name})"
            if all(row.section != section for row in rows):
                rows.append(Row(title, section))
    return rows


def _section(recipe: Recipe, method: str) -> dict[str, Any]:
    kept = (*KEPT, "steps") if METHODS[method].losses else KEPT
    return {key: value for key, value in recipe.synthesize.items() if key in kept} | {"method": method}


def _shared_options(recipe: Recipe) -> dict[str, Any]:
    return {key: getattr(Comparison(**recipe.compare), key) for key in ("seeds", "real_images")}


def _complete(recipe: Recipe, section: str) -> dict[str, Any]:
    """Return a section with its defaults, without the seed: every row gets the comparison's."""
    return {key: value for key, value in (defaults(SECTIONS[section].call) | getattr(recipe, section)).items() if key != "seed"}


def _agree(path: str, first: tuple[str, Any], second: tuple[str, Any]) -> None:
    """Raise RecipeError at the deepest key that differs."""
    (name, value), (other_name, other) = first, second
    if isinstance(value, dict) and isinstance(other, dict):
        for key in [*value, *(key for key in other if key not in value)]:
            _agree(f"{path}.{key}", (name, value.get(key)), (other_name, other.get(key)))
    elif value != other:
        raise RecipeError(
            f"{path} is {value!r} in {name} and {other!r} in {other_name}; recipes compared may differ in images only"
        )
