"""The JSON schema says what `load_recipe` says, of keys, types and names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from json_schema import fits

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe
from vitdfq.recipe.find import PACKAGED
from vitdfq.recipe.recipe import Recipe
from vitdfq.recipe.schema import CHOICES, find_key, recipe_schema
from vitdfq.recipe.signature import keywords

MODEL = {"model": {"name": "zoo:vit"}}
IN_A_LIST = ("baselines", "also_bits", "steps", "methods")
GOOD: list[dict[str, Any]] = [
    {},
    {"evaluate": "none"},
    {"evaluate": None, "baselines": None},
    {"evaluate": {"knn": {"k": 5}}},
    {"model": {"name": "zoo:vit", "img_size": 32}},
    {"synthesize": {"losses": {"total_variation": {"weight": 1}, "attention_centre": {"weight": 0.5}}}},
    {"synthesize": {"among": {"psaq": 0.5}, "drop_at": [0.5]}},
    {"quantize": {"weight": {"bits": None, "group_size": 64}, "overrides": {"*.fc2": {"activation": {"bits": 6}}, "head": {}}}},
    {"calibrate": {"steps": ["observe", {"gptq": None}, {"distill": {"iterations": 3}}]}},
]
BAD: list[dict[str, Any]] = [
    {"sed": 1},
    {"seed": "1"},
    {"seed": True},
    {"evaluate": "nothing"},
    {"evaluate": {"knn": {"K": 5}}},
    {"synthesize": {"losses": {"psaq": {}}}},
    {"synthesize": {"losses": {"total_variation": {"wight": 1}}}},
    {"synthesize": {"mix": {"psq": 0.5}}},
    {"quantize": {"weight": {"bits": 9}}},
    {"quantize": {"weight": {"per_token": True}}},
    {"quantize": {"weight": {"group_size": 0}}},
    {"quantize": {"softmax": {"renormalize": 1}}},
    {"quantize": {"overrides": {"*.fc2": {"actvation": {}}}}},
    {"calibrate": {"steps": ["observe", {"gptq": {"damping": "much"}}]}},
    {"calibrate": {"steps": ["observe", {"gptq": {"dmping": 1}}]}},
]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


def is_loaded(content: dict[str, Any]) -> bool:
    try:
        load_recipe(MODEL | content)
    except RecipeError:
        return False
    return True


@pytest.mark.parametrize("content", GOOD, ids=str)
def test_what_is_loaded_fits(content, schema):
    assert is_loaded(content) and fits(MODEL | content, schema)


@pytest.mark.parametrize("content", BAD, ids=str)
def test_what_is_refused_does_not_fit(content, schema):
    assert not is_loaded(content) and not fits(MODEL | content, schema)


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_package_fit(path: Path, schema):
    assert fits(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize("place", CHOICES, ids=".".join)
def test_names_are_those_that_the_check_knows(place, schema):
    def content(name: str) -> dict[str, Any]:
        value: Any = [name] if place[-1] in IN_A_LIST else name
        return (
            {place[0]: value}
            if len(place) == 1
            else {place[0]: {place[1]: value} | (MODEL["model"] if place[0] == "model" else {})}
        )

    assert not fits(MODEL | content("no_such_name"), schema)
    assert all(fits(MODEL | content(name), schema) for name in CHOICES[place])
    if place != ("model", "family"):  # whether a family opens a model is seen when it is built
        with pytest.raises(RecipeError, match=r"no_such_name"):
            load_recipe(MODEL | content("no_such_name"))


def test_every_key_is_there_and_described(schema):
    assert set(schema["properties"]) == set(keywords(Recipe)) | {"extends"}
    assert all(key.get("description") for key in schema["properties"].values())
    for name in ("model", "synthesize", "prepare", "quantize", "calibrate", "evaluate", "push", "compare"):
        properties = schema["properties"][name]["anyOf"][0]["properties"]
        undescribed = [key for key, value in properties.items() if not value.get("description")]
        assert not undescribed, f"{name}: {undescribed}"


def test_every_key_is_found_at_its_place():
    assert find_key("also_bits") == [("also_bits",)] and find_key("nothing") == []
    assert find_key("k") == [("evaluate", "knn", "k")]  # of a mapping in a section
    assert find_key("per_channel") == [
        ("quantize", "weight", "per_channel"),
        ("quantize", "overrides", "*", "weight", "per_channel"),
    ]
    assert find_key("policy") == [("quantize", "policy")]
    assert ("quantize", "bits") in find_key("bits") and ("quantize", "weight", "bits") not in find_key("bits")
    assert find_key("among") == []  # an old name
    assert all((name,) in find_key(name) for name in keywords(Recipe))
