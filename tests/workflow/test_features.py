"""Runs of a model that gives features: metrics, tables, card, comparison, plan, and the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

import vitdfq
from vitdfq.checkpoint.save_load import describe
from vitdfq.common.errors import GateError, RecipeError
from vitdfq.cost.dry_run import plan
from vitdfq.recipe import load_recipe
from vitdfq.reports.tables import comparison_table, summary_table
from vitdfq.workflow.compare import compare
from vitdfq.workflow.run import evaluate_run, run

NAMES = ("ant", "bee", "cat")
CLASS_KEYS = {"top1", "top5", "num_images", "agreement", "kl", "logits_sqnr_db"}
DISTANCE_KEYS = {"cosine", "relative_error", "features_sqnr_db"}


@pytest.fixture
def headless(folder) -> Path:
    """The fixture's ViT without its head."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_classes": 0, "model_args": config["model_args"] | {"num_classes": 0}}
    config["pretrained_cfg"] |= {"num_classes": 0}
    del config["pretrained_cfg"]["label_names"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if not name.startswith("head.")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def recipe(headless, tmp_path) -> dict:
    data = tmp_path / "data"
    for split, count in (("train", 6), ("val", 3)):
        for number, name in enumerate(NAMES):
            (data / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng([number, index, count]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[..., number] //= 4  # a class lacks a color
                Image.fromarray(pixels).save(data / split / name / f"{index}.png")
    return {
        "name": "tiny",
        "model": {"name": f"local-dir:{headless}"},
        "synthesize": {"method": "noise", "num_images": 4},
        "quantize": {"bits": "w8a8"},
        "calibrate": {"steps": [{"observe": {"num_cover": 4}}]},
        "baselines": ["dead_leaves"],
        "evaluate": {"dataset": str(data), "split": "validation"},
    }


def shown(table) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_run_compares_features(recipe, tmp_path, monkeypatch):
    out = tmp_path / "out"
    metrics = run(recipe, out=out)
    assert metrics["teacher"] | {"name": ""} == {"name": "", "top1": None, "top5": None, "num_images": 9, "read_by": None}
    named_by = {"weight_bits", "activation_bits", "dynamic", "mixed"}
    assert metrics["student"].keys() == CLASS_KEYS | DISTANCE_KEYS | {"read_by"} | named_by
    for row in (metrics["student"], metrics["baselines"]["dead_leaves"]):
        assert row["top1"] is row["agreement"] is row["kl"] is row["logits_sqnr_db"] is None
        assert 0.99 < row["cosine"] < 1 and 0 < row["relative_error"] < 0.1 and row["features_sqnr_db"] > 20
    assert metrics["read_by"] is None and metrics["synthetic"]["dead_leaves"]["cosine"] > 0.99
    assert json.loads((out / "metrics.json").read_text()) == metrics
    table = shown(summary_table(metrics))
    assert "cosine" in table and "features" in table and "top-1" not in table and "agreement" not in table
    assert "cosine 0.99" in table and "without labels" not in table
    assert metrics["expected"] is None and "the estimate is about classes, and this model gives features" in table
    card = ModelCard.load(out / "README.md")
    assert card.data.pipeline_tag == "image-feature-extraction" and card.data.get("eval_results") is None
    assert (
        f"| **this model, W8A8** | {metrics['student']['cosine']:.4f} |" in card.text
        and "student(images) gives features" in card.text
    )
    assert "they need no labels" in card.text and "top-1" not in card.text and "logits" not in card.text
    again = evaluate_run(out, [])
    assert all(again[key] == metrics["student"][key] for key in DISTANCE_KEYS)
    description = describe(out)
    assert description["features"] == 32 and description["cosine"] == metrics["student"]["cosine"]
    monkeypatch.setattr("vitdfq.workflow.stages.calibrate", None)  # the student is there, so nothing is calibrated
    by_knn = run(recipe | {"evaluate": recipe["evaluate"] | {"knn": {"k": 3}}, "baselines": []}, out=out)
    assert by_knn["teacher"]["top1"] == by_knn["student"]["top1"] == 100.0 and by_knn["read_by"] == "knn"
    assert by_knn["student"]["agreement"] == 100.0 and by_knn["student"]["cosine"] == metrics["student"]["cosine"]
    assert "k-NN" in shown(summary_table(by_knn)) and "weighted k-NN" in (out / "README.md").read_text()
    results = {result.metric_name: result.metric_value for result in ModelCard.load(out / "README.md").data.eval_results}
    assert results == {"k-NN Top-1": 100.0, "k-NN Top-5": 100.0}


def test_a_changed_head_is_read_again(recipe, tmp_path):
    head, teacher = tmp_path / "head.safetensors", vitdfq.load_teacher(recipe["model"]["name"])
    changed = recipe | {"evaluate": recipe["evaluate"] | {"linear_head": str(head)}, "baselines": []}
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, teacher.num_features, generator=generator)
    save_file({"weight": weight, "bias": torch.tensor([1e4, 0.0, 0.0])}, head)
    first = run(changed, out=tmp_path / "out")
    assert first["teacher"]["top1"] == pytest.approx(100 / 3) and first["read_by"] == "linear_head"
    assert first["student"]["agreement"] == 100.0 and first["student"]["kl"] == 0.0
    save_file({"weight": weight, "bias": torch.zeros(3)}, head)
    assert run(changed, out=tmp_path / "out")["student"]["kl"] > 0


def test_tokens_are_compared_in_the_pass(recipe, tmp_path):
    tokens = recipe | {"model": recipe["model"] | {"global_pool": ""}, "baselines": []}
    metrics = run(tokens, out=tmp_path / "out")
    student, teacher = vitdfq.load(tmp_path / "out"), vitdfq.load_teacher(**tokens["model"])
    row = vitdfq.evaluate(student, teacher=teacher, **recipe["evaluate"])
    assert {key: row[key] for key in DISTANCE_KEYS} == {key: metrics["student"][key] for key in DISTANCE_KEYS}
    pooled = run(recipe | {"baselines": []}, out=tmp_path / "pooled")["student"]
    assert pooled["cosine"] != metrics["student"]["cosine"]
    assert "tokens, not pooled" in (tmp_path / "out/README.md").read_text()


def test_without_evaluation_every_key_is_there(recipe, tmp_path):
    metrics = run(recipe | {"evaluate": None}, out=tmp_path / "out")
    assert all(metrics["student"][key] is None for key in CLASS_KEYS | DISTANCE_KEYS | {"read_by"})
    assert "not evaluated" in shown(summary_table(metrics)) and "Not evaluated" in (tmp_path / "out/README.md").read_text()


def test_the_gate_compares_features(recipe, tmp_path):
    with pytest.raises(GateError, match=r"cosine of 0.99.* less than min_cosine \(1.000000\): .* min_cosine: 0"):
        run(recipe | {"min_cosine": 1.0}, out=tmp_path / "out", until="student")
    with pytest.raises(RecipeError, match="min_agreement: this model gives features, whose gate is min_cosine"):
        run(recipe | {"min_agreement": 50.0}, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_comparison_shows_features_first(recipe, tmp_path):
    compared = recipe | {"evaluate": recipe["evaluate"] | {"num_images": 6, "knn": {"k": 3}}, "compare": {"real_images": 2}}
    content = compare([compared], out=tmp_path / "out")
    assert not content["failed"] and [row["n"] for row in content["rows"]] == [1, 1, 1]
    page = (tmp_path / "out/compare.md").read_text().splitlines()
    heading = next(line for line in page if line.startswith("| calibrated on"))
    assert [cell.strip() for cell in heading.split("|")[3:9]] == [
        *("images", "cosine", "relative error", "features SQNR dB", "k-NN top-1 %", "agreement %"),
    ]
    assert "KL" not in heading and "class confidence" not in heading
    assert any(line.startswith("| (teacher, float32) |  |  |  |  |  | 100.00 |") for line in page)
    assert "needs no labels" in shown(comparison_table(content))


def test_the_plan_says_what_is_evaluated(recipe):
    planned = plan(load_recipe(recipe))
    assert planned.model["gives"] == "features" and planned.images["evaluated_on"].endswith(", features alone")
    knn = plan(load_recipe(recipe, ["evaluate.knn={k: 3}"]))
    assert knn.images["evaluated_on"].endswith(", classes read by knn")
    with pytest.raises(RecipeError, match="no image may be its own neighbor"):
        plan(load_recipe(recipe, ["evaluate.knn={split: validation}"]))


@pytest.fixture
def command_recipe(recipe, tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(recipe | {"baselines": []}))
    return str(path)


def test_the_commands(command_recipe, command, tmp_path):
    out = str(tmp_path / "out")
    for verb in ("synthesize", "calibrate", "run"):
        code, printed, _ = command(verb, command_recipe, "--out", out)
        assert code == 0, verb
    assert "cosine" in printed and "top-1" not in printed
    code, printed, _ = command("evaluate", out, "--set", "evaluate.knn={k: 3}", "--format", "json")
    assert code == 0 and json.loads(printed)["read_by"] == "knn" and json.loads(printed)["top1"] == 100.0
    assert "features          32" in command("info", out)[1]
    assert command("run", command_recipe, "--dry-run", "--set", "evaluate=none")[0] == 0
    code, _, stderr = command("run", command_recipe, "--out", out, "--set", "evaluate.linear_head=nowhere.safetensors")
    assert code == 2 and stderr.splitlines()[-1] == "error: nowhere.safetensors: no such file"
    code, _, stderr = command("run", command_recipe, "--out", out, "--set", "evaluate.knn={neighbors: 3}")
    assert code == 3 and "unknown key" in stderr and "choices: dataset, split, k, num_images" in stderr
