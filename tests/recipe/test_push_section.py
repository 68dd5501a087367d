"""The recipe section `push`, before anything is pushed."""

import pytest

from vitdfq.common.errors import RecipeError
from vitdfq.cost.dry_run import plan
from vitdfq.recipe import load_recipe

RECIPE = {"name": "small", "model": {"name": "zoo:vit"}, "synthesize": {"method": "noise"}, "calibrate": {"steps": ["observe"]}}


@pytest.mark.integration
def test_a_plan_names_the_repository():
    planned = plan(load_recipe(RECIPE, ["push.repo=owner/name"]))
    assert planned.to_dict()["push"] == "owner/name" and "publish     owner/name" in planned.render().renderables
    assert plan(load_recipe(RECIPE)).push is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"private": True}, "push: repo is missing: a Hub repository owner/name"),
        ({"repo": "name"}, "push.repo: 'name' is not a Hub repository owner/name: its owner is missing"),
        ({"repo": "owner/name", "privat": True}, "push.privat: unknown key, did you mean 'private'?"),
        ({"repo": "owner/name", "private": "no"}, "push.private: 'no' is text; expected true or false"),
    ],
    ids=str,
)
def test_a_wrong_section_is_refused_when_the_recipe_is_read(section, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE | {"push": section})
    assert message in str(caught.value)
