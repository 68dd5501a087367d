"""The recipe section `compare`: which rows it means, and which recipes fit in one table."""

import pytest

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe
from vitdfq.recipe.comparison import check_agreement, comparison_of, rows_of


def recipe(name="a", **changes):
    content = {"model": {"name": "zoo:vit"}, "synthesize": {"method": "psaq", "num_images": 4, "steps": 7, "lr": 0.5}, "seed": 3}
    return load_recipe(content | {"name": name} | changes)


def test_another_method_keeps_the_number_of_images_and_steps_but_not_the_methods_own_options():
    rows = {row.title: row.section for row in rows_of([recipe(compare={"methods": ["noise", "psaq", "sardfq"]})])}
    assert list(rows) == ["noise", "psaq", "sardfq"]
    assert rows["noise"] == {"method": "noise", "num_images": 4, "seed": 3}  # takes no steps
    assert rows["psaq"] == {"method": "psaq", "num_images": 4, "steps": 7, "lr": 0.5, "seed": 3}
    assert rows["sardfq"] == {"method": "sardfq", "num_images": 4, "steps": 7, "seed": 3}


def test_without_the_section_the_rows_are_own_images_and_baselines():
    own = recipe(baselines=["noise"])
    assert [row.title for row in rows_of([own])] == ["psaq", "noise"]
    assert comparison_of([own]).seeds == [3] and comparison_of([own]).real_images == 0


def test_rows_of_several_recipes_are_called_by_the_recipe_and_never_twice_the_same():
    recipes = [
        recipe("a", baselines=["noise"]),
        recipe("b", baselines=["noise"], synthesize={"method": "psaq", "num_images": 4}),
        recipe("c", baselines=["noise"], synthesize={"num_images": 6}),
    ]
    assert [row.title for row in rows_of(recipes)] == ["a", "noise", "b", "c", "noise (c)"]


def test_defaults_written_out_and_seeds_are_no_difference():
    same = recipe("b", quantize={"bits": "w4a4", "policy": "vitdfq"}, calibrate={"seed": 9}, seed=8, compare={"seeds": [5]})
    check_agreement([recipe("a"), same])
    assert comparison_of([recipe("a"), same]).seeds == [5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "zoo:deit"}}, "model.name is 'zoo:vit' in a and 'zoo:deit' in b"),
        ({"prepare": {"steps": []}}, "prepare.steps is None in a and [] in b"),
        ({"quantize": {"weight": {"bits": 3}}}, "quantize.weight is None in a and {'bits': 3} in b"),
        ({"calibrate": {"steps": ["observe"]}}, "calibrate.steps is None in a and ['observe'] in b"),
        ({"evaluate": {"num_images": 5}}, "evaluate.num_images is None in a and 5 in b"),
        ({"name": "a"}, "two recipes are called 'a'"),
    ],
)
def test_the_first_key_that_differs_is_named(changes, message):
    with pytest.raises(RecipeError) as caught:
        check_agreement([recipe("a"), recipe(**{"name": "b"} | changes)])
    assert message in str(caught.value)


def test_sections_compare_must_agree():
    with pytest.raises(RecipeError, match=r"compare\.real_images is 2 in a and 0 in b"):
        check_agreement([recipe("a", compare={"real_images": 2}), recipe("b", compare={"methods": ["noise"]})])
