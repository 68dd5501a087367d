"""`vitdfq analyze` as a command on a tiny model, and its recipe of bits by layer as any other recipe."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from html_page import parsed

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.recipe import load_recipe
from vitdfq.workflow.analyze import MIXED, analyze, run_folder
from vitdfq.workflow.run import run

pytest.importorskip("scipy")
RECIPE = {
    "name": "small",
    "synthesize": {"method": "noise", "num_images": 4},
    "quantize": {"bits": "w4a8", "overrides": {"head": {"activation": {"bits": 6}}}},
    "calibrate": {"steps": ["observe"]},
    "also_bits": ["w3a3"],
    "evaluate": None,
    "min_agreement": 0,
}


@pytest.fixture
def recipe(folder, tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": {"name": f"local-dir:{folder}"}}))
    return path


def test_the_command_leaves_tables_charts_and_a_recipe(recipe, tmp_path):
    out = tmp_path / "out"
    arguments = [recipe, "--budget", "average-bits=3", "--out", out, "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "vitdfq", "analyze", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content == json.loads((out / "analysis.json").read_text())
    charts = {"sites.png", "units.png", "outliers.png", "attention.png", "bits.png"}
    assert charts | {"analysis.md", MIXED} <= {path.name for path in out.iterdir()}
    page = parsed((out / "reports/index.html").read_text())
    assert page.problems == [] and len(page.images) == len(charts)
    assert f"vitdfq run {out / MIXED}" in done.stderr and content["sites"][0]["site"] in (out / "analysis.md").read_text()
    mixed = load_recipe(out / MIXED)
    assert mixed.also_bits == [] and mixed.quantize["bits"] == "w4a8"
    assert mixed.quantize["overrides"]["head"]["activation"] == {"bits": 6}
    bits = {name: change["weight"]["bits"] for name, change in mixed.quantize["overrides"].items()}
    assert bits == content["allocation"]["bits"] and len(set(bits.values())) > 1
    metrics = run(out / MIXED, out=tmp_path / "run", until="student")
    assert metrics["size"]["packed_bytes"] > 0


def test_a_second_time_nothing_is_measured_and_another_budget_is(recipe, tmp_path, monkeypatch):
    first = analyze(recipe, out=tmp_path / "out")
    assert first["allocation"] is None and not (tmp_path / "out" / MIXED).exists()
    monkeypatch.setattr("vitdfq.workflow.analyze.measure_everything", None)
    assert analyze(recipe, out=tmp_path / "out") == first
    with pytest.raises(TypeError):
        analyze(recipe, out=tmp_path / "out", budget="size=30k")


def test_a_run_gives_its_recipe_and_images(recipe, tmp_path, caplog):
    run(recipe, out=tmp_path / "run", until="student")
    sealed = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    content = analyze(tmp_path / "run")
    assert "images.safetensors: used\n" in caplog.text
    assert {path: path.read_bytes() for path in sealed} == sealed
    assert not (tmp_path / "run/analysis/images.safetensors").exists()
    assert content["sites"] == analyze(recipe, out=tmp_path / "again")["sites"]
    caplog.clear()
    analyze(tmp_path / "run", overrides=["synthesize.num_images=5"])
    assert "not of this recipe as it is now" in caplog.text


def test_accuracy_is_measured_where_it_is_asked_for(recipe, tmp_path):
    overrides = ["model.name=zoo:vit", "evaluate.dataset=zoo:fashion-mnist", "evaluate.num_images=20", "quantize.bits=w8a8"]
    content = analyze(recipe, out=tmp_path / "out", overrides=overrides)
    assert all(0 <= row[kind]["top1"] <= 100 for row in content["sites"] for kind in ("alone_measured", "all_but_measured"))
    assert "top-1 % alone" in (tmp_path / "out/analysis.md").read_text()


def test_wrong_sources_and_budgets_are_refused_before_any_work(recipe, tmp_path):
    with pytest.raises(InputError, match=r"a folder without recipe.yaml"):
        run_folder(tmp_path)
    with pytest.raises(RecipeError, match="--budget: unknown budget 'sise', did you mean 'size'"):
        analyze(recipe, out=tmp_path / "out", budget="sise=3")
    with pytest.raises(RecipeError, match="evaluate: "):
        analyze(recipe, out=tmp_path / "out", overrides=["evaluate=none"])
    with pytest.raises(RecipeError, match="analyze: budget average-bits=1: the least possible is 2"):
        analyze(recipe, out=tmp_path / "out", budget="average-bits=1")
    shutil.rmtree(tmp_path / "out")
