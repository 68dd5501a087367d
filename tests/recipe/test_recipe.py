"""A recipe file becomes a Recipe, and a Recipe the same file; overrides change it on the way."""

import yaml

from vitdfq.recipe import load_recipe
from vitdfq.recipe.sections import SECTIONS, takes_seed


def test_sections_and_defaults(file):
    recipe = load_recipe(file)
    assert (recipe.name, recipe.seed, recipe.reference_top1) == ("small", 3, None)
    assert recipe.model == {"name": "zoo:vit"} and recipe.prepare == {} and recipe.baselines == ["noise"]
    assert recipe.calibrate["steps"] == ["observe", {"reconstruct": {"iterations": 3, "lr": 0.001}}]
    assert recipe.evaluate == {"dataset": "zoo:fashion-mnist", "split": "test"}


def test_the_seed_reaches_the_sections_that_take_one(file):
    assert [section for section in SECTIONS if takes_seed(section)] == ["synthesize", "calibrate"]
    recipe = load_recipe(file, ["calibrate.seed=9"])
    assert recipe.synthesize["seed"] == 3 and recipe.calibrate["seed"] == 9
    assert "seed" not in recipe.quantize and "seed" not in recipe.evaluate


def test_round_trip(file, tmp_path):
    recipe = load_recipe(file, ["notes='two: lines'", "calibrate.seed=9"])
    assert load_recipe(recipe.to_dict()) == recipe
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert recipe.to_yaml().startswith("name: small\n")
    # the seed follows the top one when it came from there
    assert load_recipe(tmp_path / "again.yaml", ["seed=5"]).synthesize["seed"] == 5


def test_a_dict_is_not_changed_and_values_used_twice_are_written_out(tmp_path):
    losses = {"total_variation": {"weight": 0.1}}
    given = {"model": {"name": "zoo:vit"}, "synthesize": {"losses": losses}, "calibrate": {"steps": ["observe"] * 2}}
    before = yaml.safe_dump(given)
    text = load_recipe(given).to_yaml()
    assert yaml.safe_dump(given) == before
    assert "&" not in text and "*" not in text


def test_overrides_are_yaml_and_reach_into_lists(file):
    recipe = load_recipe(
        file,
        [
            "synthesize.lr=0.5",
            "calibrate.steps.1.reconstruct.iterations=7",
            "prepare.steps=[rotate_heads]",
            'quantize.overrides={"head*": {bits: null}}',
            "name=other",
        ],
    )
    assert recipe.synthesize["lr"] == 0.5 and recipe.name == "other"
    assert recipe.calibrate["steps"][1]["reconstruct"]["iterations"] == 7
    assert recipe.prepare == {"steps": ["rotate_heads"]}
    assert recipe.quantize["overrides"] == {"head*": {"bits": None}}
