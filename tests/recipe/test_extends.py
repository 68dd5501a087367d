"""`extends`: mappings are merged key by key, errors point to the file where a key stands, and a base cannot lie elsewhere."""

import pytest
import yaml
from recipe_text import RECIPE, refusal

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe


def write(folder, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_mappings_are_merged_and_lists_replaced(tmp_path):
    write(
        tmp_path,
        base=RECIPE + "name: other\nnotes: of the base\n",
        mine="extends: base.yaml\nseed: 5\n"
        "synthesize: {losses: {total_variation: {weight: 0.5}, attention_prior: {weight: 1}}}\n"
        "quantize: {bits: w6a6}\ncalibrate: {steps: [observe]}\nbaselines: null\n",
    )
    recipe, base = load_recipe(tmp_path / "mine.yaml"), load_recipe(tmp_path / "base.yaml")
    assert (recipe.name, recipe.seed, recipe.notes, recipe.model) == ("mine", 5, "of the base", base.model)
    assert recipe.synthesize["losses"] == {"attention_prior": {"weight": 1}, "total_variation": {"weight": 0.5}}
    assert recipe.synthesize["num_images"] == 4
    assert recipe.quantize == base.quantize | {"bits": "w6a6"}
    assert recipe.calibrate["steps"] == ["observe"] and recipe.baselines == []
    assert "extends" not in yaml.safe_load(recipe.to_yaml())
    (tmp_path / "resolved.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_a_base_may_have_a_base_and_may_be_packaged(tmp_path):
    write(tmp_path, first="extends: second.yaml\nname: first\n", second="extends: quickstart\nsynthesize: {steps: 7}\n")
    recipe, quickstart = load_recipe(tmp_path / "first.yaml"), load_recipe("quickstart")
    assert recipe.synthesize == quickstart.synthesize | {"steps": 7} and recipe.evaluate == quickstart.evaluate
    assert load_recipe({"extends": "quickstart", "name": "quickstart"}) == quickstart


def test_overrides_apply_to_the_whole(tmp_path):
    write(tmp_path, base=RECIPE, mine="extends: base.yaml\n")
    recipe = load_recipe(tmp_path / "mine.yaml", ["calibrate.steps.1.reconstruct.iterations=9", "synthesize.num_images=2"])
    assert recipe.calibrate["steps"][1]["reconstruct"]["iterations"] == 9 and recipe.synthesize["num_images"] == 2
    message = refusal(RecipeError, tmp_path / "mine.yaml", "extends=quickstart")
    assert message.startswith("--set extends=quickstart: extends: belongs in the recipe's file")


@pytest.mark.parametrize(
    ("base", "mine", "message"),
    [
        (
            "synthesize: {stps: 3}\n",
            "model: {name: zoo:vit}\n",
            "base.yaml:1: synthesize.stps: unknown key, did you mean 'steps'?",
        ),
        ("model: {name: zoo:vit}\n", "synthesize:\n  steps: -1\n", "mine.yaml:3: synthesize.steps: steps must not be negative"),
        (
            "model: {name: zoo:vit}\nsynthesize:\n  steps: -1\n",
            "synthesize: {lr: 1.0}\n",
            "base.yaml:3: synthesize.steps: steps must",
        ),
        (
            "model: {name: zoo:vit}\nsynthesize:\n  steps: -1\n",
            "synthesize: {steps: -2}\n",
            "mine.yaml:2: synthesize.steps: steps must",
        ),
        (
            "model:\n  name: zoo:vit\nbaselines:\n- noise\n- nois\n",
            "",
            "base.yaml:5: baselines.1: unknown synthesis method 'nois'",
        ),
        (
            "model:\n  name: zoo:vit\nbaselines:\n- noise\n- nois\n",
            "baselines: [nos]\n",
            "mine.yaml:2: baselines.0: unknown synthesis",
        ),
        ("seed: [\n", "", "base.yaml:2: not YAML"),
        ("seed: 3\n", "", "mine.yaml: model: name is missing"),
        ("- 3\n", "", "base.yaml: the recipe is not a mapping but a list"),
    ],
)
def test_errors_name_the_file_of_the_key(base, mine, message, tmp_path):
    write(tmp_path, base=base, mine=f"extends: base.yaml\n{mine}")
    assert refusal(RecipeError, tmp_path / "mine.yaml").startswith(f"{tmp_path}/{message}")


def test_a_bad_default_name_is_not_blamed_on_the_base(tmp_path):
    write(tmp_path, base=RECIPE + "name: good\n")
    (tmp_path / "not a name.yaml").write_text("extends: base.yaml\n")
    assert refusal(RecipeError, tmp_path / "not a name.yaml").startswith(
        f"{tmp_path}/not a name.yaml: name: 'not a name' must be"
    )


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        (
            "quikstart",
            "no packaged recipe 'quikstart', did you mean 'quickstart'?; a file in the recipe's folder needs its .yaml",
        ),
        ("base", "no packaged recipe 'base'"),
        ("bse.yaml", "'bse.yaml': no such file in the recipe's folder"),
        ("../outside.yaml", "'../outside.yaml' lies outside the recipe's folder"),
        ("{outside}", "lies outside the recipe's folder"),
        ("link.yaml", "'link.yaml' lies outside the recipe's folder"),
        ("~/outside.yaml", "no such file in the recipe's folder"),
        ("https://example.com/base.yaml", "no such file in the recipe's folder"),
        ("https://example.com/base", "no packaged recipe 'https://example.com/base'"),
        ('"x\\0.yaml"', "null"),
        (f"{'x' * 300}.yaml", "File name too long"),
        ("3", "3 is a whole number; expected text"),
        ("null", "None is null; expected text"),
        ("[base.yaml]", "['base.yaml'] is a list; expected text"),
    ],
)
def test_a_base_is_packaged_or_in_the_recipes_folder(extends, message, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(tmp_path, outside=RECIPE)
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    write(folder, base=RECIPE, mine=f"\nextends: {extends.format(outside=tmp_path / 'outside.yaml')}\n")
    reason = refusal(RecipeError, folder / "mine.yaml")
    assert reason.startswith(f"{folder}/mine.yaml:2: extends: ") and message in reason


def test_a_dict_extends_packaged_recipes_only(tmp_path, monkeypatch):
    write(tmp_path, base=RECIPE)
    monkeypatch.chdir(tmp_path)
    assert "a dict has no folder" in refusal(RecipeError, {"extends": "base.yaml"})


def test_cycles_and_long_chains_are_refused(tmp_path):
    write(tmp_path, a="extends: b.yaml\n", b="extends: a.yaml\n", c="extends: c.yaml\n")
    assert refusal(RecipeError, tmp_path / "a.yaml") == (
        f"{tmp_path}/b.yaml:1: extends: a recipe cannot extend itself: a.yaml -> b.yaml -> a.yaml"
    )
    assert "c.yaml -> c.yaml" in refusal(RecipeError, tmp_path / "c.yaml")
    write(tmp_path, **{f"n{number}": f"extends: n{number + 1}.yaml\n" for number in range(1200)}, n1200=RECIPE)
    assert "more than 8 bases" in refusal(RecipeError, tmp_path / "n0.yaml")
    assert load_recipe(tmp_path / "n1192.yaml").name == "n1192"
