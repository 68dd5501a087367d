"""The recipes of the package: found by name and by path, with a true header, and part of the wheel."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import timm
from recipe_text import RECIPE, refusal

from vitdfq.common.errors import InputError
from vitdfq.recipe import load_recipe, packaged_recipes
from vitdfq.recipe.catalog import entries

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vitdfq"
FILES = sorted((PACKAGE / "recipe" / "packaged").glob("*.yaml"))
RECIPES, BASES = ([path for path in FILES if path.name.startswith("_") == base] for base in (False, True))


def test_missing_files_name_the_nearest(file, tmp_path, monkeypatch):
    assert "did you mean" in refusal(InputError, tmp_path / "smal.yaml")
    assert f"{tmp_path}: is a folder" in refusal(InputError, tmp_path)
    assert "no such recipe, did you mean 'quickstart'?" in refusal(InputError, "quikstart")
    monkeypatch.chdir(tmp_path)
    assert "no such recipe, did you mean 'quickstart'?" in refusal(InputError, "recipes/quikstart.yaml")


def test_names_and_paths_of_a_checkout_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart") == load_recipe("recipes/quickstart.yaml") == load_recipe(Path("recipes/quickstart.yaml"))
    assert load_recipe("recipes/deit_b_w4a4.yaml").name == "deit_b_w4a4"
    for absent in ("elsewhere/quickstart.yaml", "quickstart.yaml", str(tmp_path / "recipes/quickstart.yaml")):
        assert "no such recipe" in refusal(InputError, absent)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "quickstart.yaml").write_text(RECIPE)
    assert load_recipe("quickstart").seed == load_recipe("recipes/quickstart.yaml").seed == 3  # a local recipe comes first


def test_there_are_recipes():
    families = {"deit": "tsb", "vit": "sb", "swin": "tsb"}
    expected = {f"{family}_{size}_{bits}" for family, sizes in families.items() for size in sizes for bits in ("w4a4", "w6a6")}
    assert (
        expected | {"quickstart"}
        <= {path.stem for path in RECIPES}
        == set(packaged_recipes())
        == set(entries("recipes")["recipes"])
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_has_its_header(path):
    recipe = load_recipe(path)
    lines = path.read_text().splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["#", word] for word in ("What", "Command", "Expected", "Cost")]
    verb = "compare" if recipe.compare else "run"
    assert lines[1].endswith(f"vitdfq {verb} recipes/{path.name}") and recipe.name == path.stem
    assert load_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if "extends: _imagenet" in path.read_text()], ids=lambda path: path.stem
)
def test_an_imagenet_recipe(path):
    recipe, lines = load_recipe(path), path.read_text().splitlines()
    assert recipe.model["name"] in timm.list_pretrained(), "a pinned tag"
    assert f"{recipe.reference_top1:.2f} % top-1" in lines[2] and "not measured yet" in lines[2]
    dynamic = "_dynamic" if recipe.quantize.get("policy") == "vitdfq_dynamic" else ""
    assert path.stem.endswith(f"_{recipe.quantize['bits']}{dynamic}")
    shared = {"method": "vitdfq", "num_images": 256, "steps": 100, "seed": 0}
    assert (recipe.synthesize, recipe.baselines) == (shared, ["noise"])
    assert recipe.evaluate == {"dataset": "imagenet-1k", "split": "validation"}


FEATURE_RECIPES = {
    "dinov2_s_w8a8": "vit_small_patch14_dinov2.lvd142m",
    "dinov3_s_w8a8": "vit_small_patch16_dinov3.lvd1689m",
    "clip_b_w8a8": "vit_base_patch16_clip_224.openai",
    "siglip2_b_w8a8": "vit_base_patch16_siglip_224.v2_webli",
}


def test_recipes_of_models_that_give_features():
    extending = {path.stem: load_recipe(path) for path in RECIPES if "extends: _features" in path.read_text()}
    assert {name: recipe.model["name"] for name, recipe in extending.items()} == FEATURE_RECIPES
    for recipe in extending.values():
        assert recipe.model["name"] in timm.list_pretrained(), "a pinned tag"
        assert recipe.bits == "w8a8" and recipe.baselines == ["noise"] and recipe.reference_top1 is None
        assert load_recipe(recipe.to_dict(), ["quantize.bits=w4a4", "evaluate.knn={split: train}"]).evaluation.neighbors.k == 20


def test_reference_top1_is_that_of_the_pinned_tag():
    published = {
        "vit_base_patch16_224.augreg_in21k_ft_in1k": 84.534,
        "vit_small_patch16_224.augreg_in21k_ft_in1k": 81.402,
        "deit_tiny_patch16_224.fb_in1k": 72.190,
        "deit_small_patch16_224.fb_in1k": 79.856,
        "deit_base_patch16_224.fb_in1k": 81.980,
        "swin_tiny_patch4_window7_224.ms_in1k": 81.388,
        "swin_small_patch4_window7_224.ms_in1k": 83.228,
        "swin_base_patch4_window7_224.ms_in1k": 83.604,
    }
    imagenet = [load_recipe(path) for path in RECIPES if "extends: _imagenet" in path.read_text()]
    assert {recipe.model["name"]: recipe.reference_top1 for recipe in imagenet} == published


SARDFQ_PAPER = {  # recipe -> the paper's top-1 at W4A4, and the published one of the tag
    "paper_sardfq_deit_b": (72.17, 81.98),
    "paper_sardfq_vit_b": (51.84, 84.534),
    "paper_sardfq_swin_b": (76.42, 85.276),
}


@pytest.mark.parametrize("name", SARDFQ_PAPER)
def test_sardfq_on_imagenet_has_the_papers_settings_and_marks_its_figure(name):
    recipe, expected = load_recipe(name), (PACKAGE / "recipe" / "packaged" / f"{name}.yaml").read_text().splitlines()[2]
    paper, reference = SARDFQ_PAPER[name]
    assert f"paper: {paper} % top-1" in expected and "ours not measured here" in expected
    assert recipe.reference_top1 == reference
    assert recipe.model["name"] in timm.list_pretrained(), "a pinned tag"
    assert recipe.synthesize == {"method": "sardfq", "num_images": 32, "steps": 1000, "seed": 0}
    assert recipe.quantize == {"bits": "w4a4", "policy": "sardfq"}
    assert recipe.calibrate["steps"][1]["reconstruct"]["iterations"] == 100
    assert recipe.evaluate == {"dataset": "imagenet-1k", "split": "validation"}


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_is_checked_but_not_run(path, monkeypatch):
    assert load_recipe({"extends": path.stem, "model": {"name": "zoo:vit"}}).name == "recipe"
    monkeypatch.chdir(ROOT)
    for given in (path, path.stem, f"recipes/{path.name}"):
        assert "is a base for other recipes" in refusal(InputError, given)


def test_old_kinds_of_names_are_answered_with_the_new_one():
    for old, new in (("starts", "procedural"), ("canvases", "parametrizations")):
        with pytest.raises(InputError, match=f"unknown kind of name '{old}', did you mean '{new}'?"):
            entries(old)
        assert new in entries(new)


def test_package_data_names_every_file_that_is_not_python():
    with open(ROOT / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["vitdfq"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files <= packaged, f"not in the wheel: {files - packaged}"
    assert set(FILES) <= packaged


@pytest.mark.slow  # builds the wheel
def test_the_wheel_holds_the_recipes(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools leaves a folder `build`, and takes what an earlier one holds
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "vitdfq", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run(list(map(str, wheel)), check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        environment = {"PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=True
        ).stdout

    listed = python("-m", "vitdfq", "list", "recipes")
    assert "quickstart" in listed and "deit_b_w4a4" in listed and "_imagenet" not in listed
    assert "zoo:deit" in python("-m", "vitdfq", "run", "quickstart", "--dry-run", "--set", "synthesize.steps=10")
    assert "deit_b_w4a4" in python("-c", "import vitdfq; print(vitdfq.load_recipe('recipes/deit_b_w4a4.yaml').name)")
