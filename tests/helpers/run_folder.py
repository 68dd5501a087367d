"""The files of a finished run that a page is made of, written without a run."""

import copy
import json
from pathlib import Path

import torch

from vitdfq.common.safetensors_io import write_tensors
from vitdfq.reports import attention, image_targets
from vitdfq.runtime.loss_recorder import losses_file

SCORES = {"num_images": 32, "agreement": 96.875, "kl": 0.01234567, "logits_sqnr_db": 17.04}
METRICS = {
    **{"recipe": "small", "vitdfq": "0.1.0", "seed": 3, "device": "cpu", "num_processes": 1},
    "synthesis": {"method": "sardfq", "num_images": 4, "steps": 60, "seconds": 61.5},
    "calibration": {"seconds": 74.7},
    "size": {"float_bytes": 4_820_000, "packed_bytes": 710_000},
    "synthetic": {"calibration": SCORES, "dead_leaves": SCORES | {"agreement": 100.0}},
    "read_by": "head",
    "teacher": {"name": "zoo:deit", "top1": 93.0, "top5": 100.0, "num_images": 300},
    "student": {
        **{"top1": 92.5, "top5": 99.5, "num_images": 300, "agreement": 97.67, "kl": 0.0169, "logits_sqnr_db": 18.6},
        **{"weight_bits": 4, "activation_bits": 4, "dynamic": False, "mixed": None},
    },
    "baselines": {
        "noise": {"top1": 91.0, "top5": 99.0, "num_images": 300, "agreement": 95.0, "kl": 0.05, "logits_sqnr_db": 12.0}
    },
}
NOT_EVALUATED = {"top1": None, "top5": None, "num_images": None, "agreement": None, "kl": None, "logits_sqnr_db": None}
RECIPE = "name: small\nmodel: {name: zoo:deit}\nevaluate: {dataset: zoo:fashion-mnist, split: test, num_images: 300}\n"


def unevaluated() -> dict:
    """The metrics of a run without evaluation."""
    metrics = copy.deepcopy(METRICS)
    metrics["teacher"] |= {"top1": None, "top5": None, "num_images": None}
    metrics["student"] |= NOT_EVALUATED
    metrics["baselines"]["noise"] = dict(NOT_EVALUATED)
    return metrics | {"read_by": None}


def write_run(folder: Path, metrics: dict = METRICS, recipe: str = RECIPE, name: str = "Dress") -> Path:
    """Write a folder as a run leaves it; `name` is that of a class."""
    rng = torch.Generator().manual_seed(0)
    (folder / "reports").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_tensors(folder / "images.safetensors", {"images": torch.randn(4, 3, 28, 28, generator=rng)})
    maps = {key: torch.rand(2, 3, 7, 7, generator=rng) for key in ("maps", "priors")}
    write_tensors(folder / attention.FILE, maps)
    rows = [{"class": 3, "confidence": 0.81, "target": 3, "labels": "soft", "target_confidence": 0.81}] * 3
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "names": {"3": name}, "images": [*rows, {"class": 7, "confidence": 0.4}]}
    (folder / image_targets.FILE).write_text(json.dumps(about))
    errors = {f"blocks.{index}": {"own": 20.0 + index, "so_far": 18.0 - index} for index in range(3)}
    (folder / "reports/unit_sqnr.json").write_text(json.dumps(errors))
    stages = {"images.safetensors": 61.5, "model.safetensors": 74.7, "stages/student_predictions.safetensors": 6.2}
    record = {stage: {"seconds": seconds, "peak_bytes": 1_130_000_000} for stage, seconds in stages.items()}
    (folder / "stages/finished.json").write_text(json.dumps(record))
    losses = {"images.safetensors": "self/synthesize/class_confidence", "model.safetensors": "1_distill/distill/loss"}
    for artifact, curve in losses.items():
        path = folder / losses_file(artifact)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"shaped_by": "", "curves": {curve: {"stride": 1, "points": [[1, 3.0], [2, 2.0], [3, 1.5]]}}}))
    return folder
