"""`vitdfq run` as a command, on a zoo model with few images and few steps."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from html_page import parsed
from PIL import Image

import vitdfq
from vitdfq.common.safetensors_io import read_tensors
from vitdfq.evaluation import Predictions
from vitdfq.recipe import load_recipe
from vitdfq.synthesis.inversion.optimize import Inversion
from vitdfq.workflow.run import open_run

RECIPE = {
    "name": "small",
    "seed": 3,
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "sardfq", "num_images": 4, "steps": 6},
    "quantize": {"bits": "w4a4"},
    "calibrate": {"steps": ["observe", {"reconstruct": {"iterations": 3}}]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 200},
    "baselines": ["noise"],
}


def vitdfq_command(*arguments, check=True, **kwargs):
    command = [sys.executable, "-m", "vitdfq", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    done = vitdfq_command("run", folder / "small.yaml", "--out", folder / "out", "--format", "json")
    assert json.loads(done.stdout) == json.loads((folder / "out/metrics.json").read_text())
    return folder


def test_folder_and_metrics_json_have_the_documented_content(finished):
    out = finished / "out"
    for name in ("config.json", "model.safetensors", "recipe.yaml", "README.md", "images.safetensors"):
        assert (out / name).stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"recipe", "vitdfq", "seed", "device", "num_processes", "teacher", "student"} <= set(metrics)
    assert metrics["seed"] == 3 and metrics["recipe"] == "small"
    assert metrics["teacher"]["num_images"] == metrics["student"]["num_images"] == 200
    assert metrics["teacher"]["top1"] > 85
    assert (metrics["student"]["weight_bits"], metrics["student"]["activation_bits"]) == (4, 4)
    for row in (metrics["student"], metrics["baselines"]["noise"]):
        assert 0 <= row["agreement"] <= 100 and row["kl"] > 0 and row["logits_sqnr_db"] > -10
    assert metrics["synthesis"]["num_images"] == 4 and metrics["synthesis"]["steps"] == 6
    assert metrics["size"]["packed_bytes"] < 0.25 * metrics["size"]["float_bytes"]


def test_the_grid_has_many_colors(finished):
    grid = Image.open(finished / "out/reports/synthetic_grid.png")
    assert grid.width > 400 and len(grid.getcolors(maxcolors=10**6)) > 100


def test_the_page_shows_what_the_run_recorded(finished):
    pytest.importorskip("matplotlib")
    page = parsed((finished / "out/reports/index.html").read_text())
    known = ["Images", "Attention", "Losses", "Error by unit", "Size, time and memory", "Recipe", "Make it again"]
    assert page.problems == [] and page.headings == ["Summary", "Results", "Without data", *known]
    assert "First the target (soft label)" in page.text and "calibration and training" in page.text
    captions = {"Synthesis: each loss, mean over the images of a step.", "Training of the student."}
    assert captions <= {image["alt"] for image in page.images}
    for name in ("attention", "losses_synthesis", "losses_training"):
        assert f"reports/{name}.png" in (finished / "out/README.md").read_text()


def test_the_card_is_valid_and_states_the_measured_scores(finished):
    from huggingface_hub import ModelCard

    card = ModelCard.load(finished / "out/README.md")
    metrics = json.loads((finished / "out/metrics.json").read_text())
    assert card.data.library_name == "vitdfq"
    top1 = next(result for result in card.data.eval_results if result.metric_name == "Top-1")
    assert top1.metric_value == round(metrics["student"]["top1"], 2)
    assert "only 200 images" in top1.dataset_name


def test_the_loaded_student_has_the_measured_accuracy(finished):
    student = vitdfq.load(finished / "out")
    row = vitdfq.evaluate(student, dataset="zoo:fashion-mnist", split="test", num_images=200)
    assert row["top1"] == json.loads((finished / "out/metrics.json").read_text())["student"]["top1"]


def test_the_same_seed_gives_the_same_bytes_and_finished_stages_are_used_again(finished):
    again = finished / "again"
    vitdfq_command("run", finished / "small.yaml", "--out", again, "--set", "baselines=[]")
    assert (again / "model.safetensors").read_bytes() == (finished / "out/model.safetensors").read_bytes()
    written = (again / "model.safetensors").stat().st_mtime_ns
    done = vitdfq_command("run", finished / "small.yaml", "--out", again)
    assert "images.safetensors: used again" in done.stderr
    assert (again / "model.safetensors").stat().st_mtime_ns == written
    assert "noise" in json.loads((again / "metrics.json").read_text())["baselines"]


def test_images_are_used_again_for_another_bit_width(finished):
    out = finished / "widths"
    vitdfq_command("synthesize", finished / "small.yaml", "--out", out)
    before = read_tensors(out / "images.safetensors")["images"]
    done = vitdfq_command("calibrate", finished / "small.yaml", "--out", out, "--set", "quantize.bits=w6a6")
    assert "images.safetensors: used again" in done.stderr
    assert torch.equal(read_tensors(out / "images.safetensors")["images"], before)
    assert json.loads((out / "config.json").read_text())["quantization_config"]["bits"] == "w6a6"


def test_a_damaged_artifact_is_made_again(finished):
    out = finished / "corrupt"
    vitdfq_command("synthesize", finished / "small.yaml", "--out", out)
    before = (out / "images.safetensors").read_bytes()
    (out / "images.safetensors").write_bytes(before[:-7] + b"garbage")
    done = vitdfq_command("synthesize", finished / "small.yaml", "--out", out)
    assert "changed since it was written" in done.stderr
    assert (out / "images.safetensors").read_bytes() == before


def test_messages_name_the_recipe_key_that_changed(finished, tmp_path):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    done = vitdfq_command("calibrate", finished / "small.yaml", "--out", out, "--set", "synthesize.num_images=3")
    assert "images.safetensors: made again, synthesize.num_images was 4, is 3\n" in done.stderr
    assert "model.safetensors: made again, images changed\n" in done.stderr


def test_images_of_another_number_are_used_again_with_their_seconds(tmp_path, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("vitdfq.runtime.partial_results.time.monotonic", lambda: now[0])
    optimize = Inversion.optimize

    def counted(self, batch, *arguments):
        now[0] += 10
        return optimize(self, batch, *arguments)

    monkeypatch.setattr(Inversion, "optimize", counted)

    def images(number: int, out: str) -> tuple[bytes, float]:
        recipe = RECIPE | {"synthesize": {"method": "sardfq", "steps": 2, "batch_size": 2, "num_images": number}}
        metrics = vitdfq.run(recipe, out=tmp_path / out, until="images")
        return (tmp_path / out / "images.safetensors").read_bytes(), metrics["synthesis"]["seconds"]

    assert images(4, "out")[1] == 20
    assert images(6, "out") == images(6, "fresh") and images(6, "fresh")[1] == 30 and now[0] == 20 + 10 + 30
    assert "images.safetensors: 4 of its 4 images are used again" in caplog.text
    assert images(2, "out") == images(2, "other") and now[0] == 60 + 10
    assert not list((tmp_path / "out").rglob("images_*"))


def test_the_stages_of_a_run_are_counted(tmp_path, caplog):
    changes = {
        "synthesize": {"method": "noise", "num_images": 2},
        "calibrate": {"steps": ["observe"]},
        "evaluate": RECIPE["evaluate"] | {"num_images": 20},
        "baselines": ["dead_leaves"],
        "also_bits": ["w8a8"],
        "min_agreement": 0,
    }
    vitdfq.run(RECIPE | changes, out=tmp_path / "my out")
    headings = [message for message in caplog.messages if message.startswith("stage ")]
    assert [heading.partition(":")[0] for heading in headings] == [f"stage {number} of 8" for number in range(1, 9)]
    assert headings[3].endswith(": synthesize images of baseline dead_leaves")
    assert headings[-1].endswith(": calibrate a student on dead_leaves images at W8A8, and evaluate it")
    assert caplog.messages[-1].startswith(f"written to '{tmp_path / 'my out'}': images.safetensors, config.json")


def test_a_damaged_config_is_named_in_a_message_and_the_student_made_again(finished, tmp_path):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    config = (out / "config.json").read_bytes()
    (out / "config.json").write_bytes(config[: len(config) // 2])
    done = vitdfq_command("calibrate", finished / "small.yaml", "--out", out)
    assert f"{out / 'config.json'}: changed since it was written; made again" in done.stderr.replace("\n", "")
    assert (out / "config.json").read_bytes() == config


def test_a_raised_gate_applies_to_a_finished_student(finished, tmp_path, monkeypatch):
    gates = []
    monkeypatch.setattr("vitdfq.reports.gates.check_student", lambda *arguments, **least: gates.append(least["min_agreement"]))
    out = shutil.copytree(finished / "out", tmp_path / "out")
    vitdfq.run(finished / "small.yaml", out=out, overrides=["min_agreement=100"], until="student")
    assert gates == [100]
    assert (out / "model.safetensors").read_bytes() == (finished / "out/model.safetensors").read_bytes()


def test_seconds_of_a_calibration_survive_an_interrupted_evaluation(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vitdfq.runtime.partial_results.time.monotonic", lambda: now[0])

    def calibrate(student, teacher, images, *, run, **options):
        if run.resume("step") is None:
            now[0] += 5
            run.checkpoint("step", {"x": torch.ones(1)})
        return student

    def predict(*arguments, **options):
        if not killed:
            killed.append(True)
            now[0] += 5  # not of the calibration
            raise KeyboardInterrupt
        return Predictions(torch.eye(2), torch.arange(2))

    killed = []
    monkeypatch.setattr("vitdfq.workflow.stages.calibrate", calibrate)
    monkeypatch.setattr("vitdfq.workflow.stages.predict", predict)
    with open_run(load_recipe(RECIPE), tmp_path / "out", fresh=False) as stages:
        with pytest.raises(KeyboardInterrupt):
            stages.evaluate_unsaved_student(torch.zeros(2, 3, 28, 28), "x", seed=0)
        _, seconds = stages.evaluate_unsaved_student(torch.zeros(2, 3, 28, 28), "x", seed=0)
    assert killed and seconds == 5


def test_the_record_and_the_card_say_what_was_rotated(finished):
    line = "rotated: the residual stream of 6 blocks, heads, MLPs"
    assert json.loads((finished / "out/config.json").read_text())["vitdfq"]["prepared"] == line
    assert f"to another of the same function: {line}." in (finished / "out/README.md").read_text()


def test_the_folder_of_another_run_is_refused_and_not_changed(finished):
    before = (finished / "out/metrics.json").read_bytes()
    done = vitdfq_command("run", finished / "small.yaml", "--set", "name=other", "--out", finished / "out", check=False)
    assert done.returncode == 2
    assert "holds another run (small)" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert (finished / "out/metrics.json").read_bytes() == before


def test_a_folder_with_other_files_is_refused(finished, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    done = vitdfq_command("run", finished / "small.yaml", "--out", tmp_path, check=False)
    assert done.returncode == 2 and "not a vitdfq run" in done.stderr
    assert (tmp_path / "README.md").read_text() == "mine"
