"""Keys and types come from a function's signature, or a dataclass' fields."""

from dataclasses import dataclass, field

import pytest

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import Recipe
from vitdfq.recipe.document import Document
from vitdfq.recipe.signature import check_keywords, defaults, keywords


@dataclass(frozen=True)
class Options:
    steps: list[str]
    rate: float | None = None
    inner: Recipe | None = None  # not expressible in YAML
    table: dict[str, int] = field(default_factory=dict)


def function(model, *, count: int = 3, rate: float | None = None, teacher: Recipe | None = None, **rest: int): ...


def test_keywords_of_a_function():
    known = keywords(function)
    assert known == {"count": int, "rate": float | None, "**": int}
    assert list(keywords(function, "model")) == ["model", "count", "rate", "**"]
    check_keywords(Document("d", {"s": {"count": 1, "rate": 2, "other": 3}}), ("s",), known)
    with pytest.raises(RecipeError, match=r"d: s\.other: 'x' is text; expected a whole number"):
        check_keywords(Document("d", {"s": {"other": "x"}}), ("s",), known)


def test_keywords_of_a_dataclass():
    known = keywords(Options)
    assert known == {"steps": list[str], "rate": float | None, "table": dict[str, int]}
    with pytest.raises(RecipeError, match=r"d: s\.stpes: unknown key, did you mean 'steps'\?; choices: steps, rate, table"):
        check_keywords(Document("d", {"s": {"stpes": []}}), ("s",), known)
    with pytest.raises(RecipeError, match=r"d: s\.table\.x: 'y' is text; expected a whole number"):
        check_keywords(Document("d", {"s": {"table": {"x": "y"}}}), ("s",), known)


def test_defaults_stand_in_the_signature():
    assert defaults(function) == {"count": 3, "rate": None, "teacher": None}
    assert defaults(Options)["rate"] is None and "steps" not in defaults(Options)
