"""The examples that pages show do run."""

import runpy
import shutil
from pathlib import Path

import pytest

from vitdfq.calibration import STEPS
from vitdfq.recipe import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
RECIPES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = dict(STEPS)
    yield
    STEPS.clear()
    STEPS.update(known)  # own_step.py adds one


@pytest.mark.integration
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_runs(path):
    if path.stem == "export_and_int8":
        pytest.importorskip("onnxruntime")
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.integration
def test_a_recipe_runs(tmp_path):
    from vitdfq.workflow.run import run

    shutil.copy(EXAMPLES / "own_recipe.yaml", tmp_path)
    few = ["evaluate.num_images=20", "synthesize.steps=2", "synthesize.num_images=4", "baselines=[]", "min_agreement=0"]
    metrics = run(tmp_path / "own_recipe.yaml", overrides=few, out=tmp_path / "out")
    assert metrics["student"]["num_images"] == 20 and metrics["synthesis"]["presets"] == ["psaq"]
