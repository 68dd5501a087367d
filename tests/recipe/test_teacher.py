"""Names of teachers in a recipe: one line that names the key or the file, and the exit code of a recipe or a file."""

import pytest

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.recipe import load_recipe
from vitdfq.recipe.teacher import load_section


@pytest.mark.parametrize("name", ["mine.pth", "best.pth.tar", "model.safetensors"])
@pytest.mark.parametrize("prefix", ["", "./", "local-dir:"])
def test_a_file_of_weights_is_answered_with_the_command_that_converts_it(name, prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        load_recipe({"model": {"name": prefix + name}})
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(InputError, match=rf"vitdfq convert {name} --arch NAME --out"):
        load_recipe({"model": {"name": prefix + name}})


@pytest.mark.parametrize(
    ("name", "message"),
    [("zoo:vti", "model: unknown zoo model 'vti', did you mean 'vit'"), ("zoo:", "model.name: .* zoo:NAME"), ("a/b", "hf-hub:")],
)
def test_a_name_is_checked_before_anything_is_loaded(name, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe({"model": {"name": name}})


def test_a_folder_is_taken_by_its_bare_name(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe({"model": {"name": "mine"}}).model["name"] == "mine"


@pytest.mark.parametrize(
    ("model", "message"), [("resnet18", "no part of this ResNet attends to anything"), ("vit_tiny_patch16_224", "'nope': 1")]
)
def test_what_only_building_shows_is_an_error_of_the_recipe(model, message):
    section = {"name": model, "pretrained": False} | ({"nope": 1} if "nope" in message else {})
    with pytest.raises(RecipeError, match=f"model: .*{message}"):
        load_section(section)


@pytest.mark.parametrize("off", [None, False, "none", "None"])
def test_spellings_that_switch_evaluation_off(off):
    assert load_recipe({"model": {"name": "zoo:vit"}, "evaluate": off}).evaluate == {"dataset": None}
