"""Runs on images without labels, and runs that are not evaluated: what needs data is null, and the table and the card say so."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import parsed
from PIL import Image
from rich.console import Console

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.cost.dry_run import plan
from vitdfq.recipe import load_recipe
from vitdfq.reports.tables import summary_table
from vitdfq.workflow.compare import compare
from vitdfq.workflow.run import evaluate_run, run

NOT_EVALUATED = {"top1": None, "top5": None, "num_images": None}


@pytest.fixture
def recipe(folder) -> dict:
    return {
        "name": "tiny",
        "model": {"name": f"local-dir:{folder}"},
        "synthesize": {"method": "noise", "num_images": 4},
        "quantize": {"bits": "w8a8"},
        "calibrate": {"steps": ["observe"]},
        "baselines": ["noise"],
        "also_bits": ["w6a6"],
        "min_agreement": 0,
    }


@pytest.fixture
def pictures(tmp_path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def shown(metrics: dict) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(summary_table(metrics))
    return captured.get()


@pytest.mark.parametrize("evaluate", [{}, {"evaluate": None}, {"evaluate": "none"}, {"evaluate": {"dataset": "none"}}])
def test_a_run_without_evaluation_is_complete(recipe, evaluate, tmp_path, caplog):
    out = tmp_path / "out"
    metrics = run(recipe | evaluate, out=out)
    assert metrics["teacher"] == {"name": recipe["model"]["name"]} | NOT_EVALUATED
    row = NOT_EVALUATED | {"agreement": None, "kl": None, "logits_sqnr_db": None}
    assert metrics["student"] == row | {"weight_bits": 8, "activation_bits": 8, "dynamic": False, "mixed": None}
    assert metrics["baselines"] == {"noise": row} and metrics["also_bits"]["w6a6"] == {
        "student": row,
        "baselines": {"noise": row},
    }
    assert metrics["size"]["packed_bytes"] > 0 and metrics["calibration"]["seconds"] > 0
    assert json.loads((out / "metrics.json").read_text()) == metrics
    why = "a model of 5 classes has no usual one" if not evaluate else "evaluation is switched off"
    assert caplog.text.count(f"no evaluation data: {why}; ") == 1 and "the run goes on without evaluation" in caplog.text
    assert "baselines and also_bits left out: without evaluation only the saved student is measured" in caplog.text
    table = shown(metrics)
    assert "not evaluated" in table and "top-1 %" not in table and "nothing was measured on real images" in table
    expected = metrics["expected"]["agreement"]
    interval = f"{expected['value']:.1f} % ({expected['low']:.1f} to {expected['high']:.1f})"
    assert f"agreement with the teacher: {interval}" in table and "measured:" not in table
    card = (out / "README.md").read_text()
    page = parsed((out / "reports/index.html").read_text())
    assert (
        page.problems == []
        and "its accuracy is not known" in page.text
        and "expected (interval)" in page.text
        and f"agreement with the teacher {interval}" in page.text
        and "None" not in page.text
    )
    assert "Not evaluated" in card and "top-1 %" not in card and "used for evaluation only" not in card
    assert f"| agreement with the teacher | {interval} |\n" in card and "Nothing below was measured on real images" in card
    with pytest.raises(RecipeError, match="no evaluation data"):
        evaluate_run(out, [])


def test_agreement_needs_no_labels(recipe, pictures, tmp_path, caplog):
    out = tmp_path / "out"
    metrics = run(recipe | {"evaluate": {"dataset": str(pictures)}, "reference_top1": 80.0}, out=out)
    assert metrics["teacher"] == {"name": recipe["model"]["name"], "top1": None, "top5": None, "num_images": 6}
    for row in (metrics["student"], metrics["baselines"]["noise"]):
        assert row["top1"] is None and 0 <= row["agreement"] <= 100 and row["kl"] >= 0 and row["logits_sqnr_db"] > 0
    assert "reference_top1 is not checked: the data set has no labels" in caplog.text
    table, card = shown(metrics), (out / "README.md").read_text()
    assert "6 images without labels" in table and "agreement %" in table and "KL" in table and "top-1 %" not in table
    assert "The images have no labels" in card and "| **this model, W8A8** |" in card and "Top-1" not in card
    assert f"measured: {metrics['student']['agreement']:.1f} %" in table
    assert f") | {metrics['student']['agreement']:.1f} % |" in card and ") | no labels |" in card
    again = evaluate_run(out, [])
    assert again["agreement"] == metrics["student"]["agreement"] and again["top1"] is None


def test_a_saved_run_is_compared_with_its_teacher_if_that_can_be_loaded(recipe, folder, pictures, tmp_path, caplog):
    out, labeled = tmp_path / "out", tmp_path / "labeled"
    for name, picture in zip("abcde", sorted(pictures.iterdir()), strict=False):
        (labeled / name).mkdir(parents=True)
        shutil.copy(picture, labeled / name)
    student = run(recipe | {"evaluate": {"dataset": str(labeled)}, "baselines": [], "also_bits": []}, out=out)["student"]
    compared = evaluate_run(out, [])
    assert compared == {key: student[key] for key in ("top1", "top5", "num_images", "agreement", "kl", "logits_sqnr_db")}
    (folder / "model.safetensors").unlink()
    assert evaluate_run(out, []) == {key: student[key] for key in ("top1", "top5", "num_images")}
    assert caplog.text.count("agreement and KL are left out: the teacher cannot be loaded: ") == 1
    with pytest.raises(InputError, match=f"{folder}.*model.safetensors"):
        evaluate_run(out, [f"evaluate.dataset={pictures}"])


def test_a_comparison_needs_images_but_no_labels(recipe, pictures, tmp_path):
    with pytest.raises(RecipeError, match="compare: no evaluation data"):
        compare([recipe], out=tmp_path / "a")
    content = compare([recipe | {"evaluate": {"dataset": str(pictures)}}], out=tmp_path / "b")
    page = (tmp_path / "b/compare.md").read_text()
    assert content["teacher"]["top1"] is None and "the images have no labels" in page and not content["failed"]


def test_the_plan_counts_the_images_of_a_folder(recipe, pictures):
    def planned(evaluate):
        return plan(load_recipe(recipe | {"evaluate": evaluate}))

    folder = planned({"dataset": str(pictures)})
    assert folder.images["evaluated_on"] == f"6 images of {pictures}"
    assert planned({"dataset": str(pictures), "num_images": 2}).images["evaluated_on"].startswith("2 images of")
    assert "not counted; estimated as 50,000" in planned({"dataset": "owner/name"}).images["evaluated_on"]
    nothing = planned({})
    assert nothing.images["evaluated_on"].startswith("nothing (no evaluation data: a model of 5 classes")
    assert nothing.seconds["evaluate"] == nothing.peak_bytes["evaluate"] - nothing.peak_bytes["evaluate"] == 0
    with pytest.raises(ValueError, match="no such file or folder"):
        planned({"dataset": "./nowhere/at/all"})


def test_a_flag_switches_evaluation_off(recipe, pictures):
    for flag in ("evaluate=null", "evaluate=none", "evaluate.dataset=null"):
        changed = load_recipe(recipe | {"evaluate": {"dataset": str(pictures)}}, [flag])
        assert changed.evaluate == {"dataset": None}
        assert load_recipe(changed.to_dict()).evaluate == {"dataset": None}


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)
