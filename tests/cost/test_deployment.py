"""`vitdfq bench RUN`: the advice on given times, and the command on a tiny run; no time is compared."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import make_tiny

import vitdfq
from vitdfq.calibration import calibrate
from vitdfq.common.errors import InputError
from vitdfq.cost.benchmark import benchmark_target
from vitdfq.cost.deployment import advice, batch_sizes, best_form
from vitdfq.cost.forms import TITLES, forms_of
from vitdfq.onnx import runners


@pytest.fixture
def student(tiny_vit, images):
    prepared = vitdfq.prepare(tiny_vit)
    return calibrate(vitdfq.quantize(prepared, bits="w8a8"), prepared, images, steps=["observe"])


@pytest.fixture
def run(student, tmp_path):
    return vitdfq.save(student, tmp_path / "run")


def test_a_form_farther_from_the_float_model_must_be_faster_by_a_margin():
    assert best_form({"float32": 100, "bfloat16": 96, "to_integer": 97}) == "float32"
    assert best_form({"float32": 100, "bfloat16": 60, "to_integer": 58}) == "bfloat16"
    assert best_form({"float32": 100, "bfloat16": 60, "to_integer": 40, "student's file, onnxruntime": 39}) == "to_integer"
    assert best_form({"float32": 100, "to_integer": 40, "student's file, OpenVINO": 30}) == "student's file, OpenVINO"


@pytest.mark.parametrize(
    ("ms", "sentence"),
    [
        (
            {1: {"float32": 100, "bfloat16": 98, "to_integer": 140}},
            "Deploy here: float32 (no other form is 1.05 times as fast); the student is no faster.",
        ),
        (
            {1: {"float32": 100, "bfloat16": 25, "to_integer": 40}, 8: {"float32": 80, "bfloat16": 20, "to_integer": 30}},
            "Deploy here: bfloat16 (4.00, 4.00 times as fast as float32); the student is no faster.",
        ),
        (
            {1: {"float32": 100, "bfloat16": 90, "to_integer": 40}, 8: {"float32": 90, "bfloat16": 60, "to_integer": 30}},
            "Deploy here: `to_integer` (2.50, 3.00 times as fast as float32).",
        ),
        (
            {
                1: {"float32": 100, "to_integer": 40, "student's file, onnxruntime": 20},
                8: {"float32": 90, "bfloat16": 30, "to_integer": 30, "student's file, onnxruntime": 40},
                32: {"float32": 90, "bfloat16": 20, "to_integer": 30, "student's file, onnxruntime": 40},
            },
            "Deploy here: the student's file in onnxruntime (`vitdfq export`) at batch 1 (5.00 times as fast as float32); "
            "bfloat16 at batch 8, 32 (3.00, 4.50 times as fast as float32).",
        ),
    ],
    ids=["float32", "bfloat16", "to_integer", "by batch"],
)
def test_the_advice_is_one_sentence(ms, sentence):
    assert advice(ms) == sentence


def test_batch_sizes_are_numbers_of_images():
    assert batch_sizes("1, 8,32,8") == [1, 8, 32]
    for text in ("", "1,", "0", "-1", "a", "1.5"):
        with pytest.raises(InputError, match="--batches"):
            batch_sizes(text)


def test_options_that_do_not_go_with_the_target_are_refused(tmp_path):
    with pytest.raises(InputError, match="--set changes a recipe"):
        benchmark_target(str(tmp_path), ["quantize.bits=w8a8"])
    with pytest.raises(InputError, match="--batches goes with a run"):
        benchmark_target("quickstart", [], "1")
    with pytest.raises(InputError, match=r"config\.json"):
        benchmark_target(str(tmp_path), [])


def test_every_form_computes_its_model(student, images, tmp_path):
    """The forms of the teacher give its logits, those of the student the student's, but for rounding."""
    teacher = make_tiny("vit")
    forms, left_out = forms_of(student, teacher, tmp_path, threads=1)
    assert set(forms) | set(left_out) == set(TITLES) and list(forms) == [title for title in TITLES if title in forms]
    for title, run in forms.items():
        expected = (student if title == "to_integer" or "student" in title else teacher)(images)
        error = (torch.as_tensor(run(images)).float() - expected).norm() / expected.norm()
        assert error < 0.05, title


def test_a_form_that_fails_is_left_out_with_its_reason(student, tmp_path, monkeypatch):
    monkeypatch.setattr("vitdfq.cost.forms.is_installed", lambda runtime: False)
    forms, left_out = forms_of(student, make_tiny("vit"), tmp_path, threads=1)
    assert list(forms) == ["float32", "bfloat16 autocast", "bfloat16", "to_integer"] and not list(tmp_path.iterdir())
    assert left_out["student's file, onnxruntime"] == "onnxruntime is not installed"
    assert left_out["student's file, OpenVINO"] == "openvino is not installed"


def test_the_command_measures_a_run_and_writes_nothing_to_it(run):
    files = sorted(run.rglob("*"))
    command = [sys.executable, "-m", "vitdfq", "bench", str(run), "--batches", "1,2", "--format", "json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    results = json.loads(done.stdout)
    assert results["bits"] == "W8A8" and results["threads"] == 1
    assert {"float32", "bfloat16", "to_integer"} <= set(results["forms"]) <= set(TITLES)
    assert all(set(times) == {"1", "2"} == set(results["deploy"]) for times in results["forms"].values())
    assert results["forms"]["float32"]["2"]["speedup"] == 1
    assert runners.is_installed("onnxruntime") == ("student's file, onnxruntime" in results["forms"])
    assert results["advice"].startswith("Deploy here: ") and sorted(run.rglob("*")) == files


def test_the_table_shows_every_form_what_is_left_out_and_the_advice(run, command, monkeypatch):
    monkeypatch.setattr("vitdfq.cost.forms.is_installed", lambda runtime: False)
    code, out, _ = command("bench", run, "--batches", "2")
    assert code == 0 and "batch 2" in out and "to_integer" in out
    assert "left out: student's file, OpenVINO: openvino is not installed" in out
    assert out.splitlines()[-1].startswith("Deploy here: ")
