import pytest

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe

ZOO = {"model": {"name": "zoo:deit"}, "name": "effort"}


def test_the_recipes_effort_is_that_of_its_calibration():
    recipe = load_recipe(ZOO | {"effort": "quick"})
    assert recipe.calibrate["effort"] == recipe.effort == "quick"
    assert load_recipe(recipe.to_dict()) == recipe
    assert "effort" not in load_recipe(ZOO).calibrate


def test_the_sections_own_effort_wins():
    recipe = load_recipe(ZOO | {"effort": "quick", "calibrate": {"effort": "thorough"}})
    assert recipe.calibrate["effort"] == "thorough" and load_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"effort": "slow"}, "effort: unknown effort 'slow'; choices: quick, standard, thorough"),
        ({"calibrate": {"effort": "slow"}}, "calibrate.effort: unknown effort 'slow'; choices: quick, standard, thorough"),
        (
            {"effort": "quick", "calibrate": {"steps": ["observe"]}},
            "effort 'quick' chooses the default steps, and steps are given",
        ),
    ],
)
def test_an_effort_that_cannot_be_is_refused(content, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(ZOO | content)
