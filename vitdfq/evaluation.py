"""evaluate(): accuracy of a model on labeled images, and its agreement with its teacher, which needs no labels."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitdfq.common.batch_size import AdaptiveBatchSize
from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.options import build_options, takes_options
from vitdfq.data import NO_LABEL, Classes, batches, check_split, load_labeled, transform_of
from vitdfq.models import require_classes, require_float32, require_ready, unwrapped
from vitdfq.runtime.run import Progress, Run
from vitdfq.training.trainable import divergence

BATCHES_IN_SHARD = 8  # a shard is the unit that is saved, and shared over the processes
AUTO = "auto"  # as a dataset: ImageNet-1k for a model with its number of classes, else none
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of `evaluate`.

    Attributes:
        dataset: `zoo:fashion-mnist`, `imagenet-1k`, a Hub id, a folder of parquet files, tar shards, class folders or images
            without labels, or a list of files (CSV). "auto": `imagenet-1k` for a model of 1,000 classes, else none. None or
            "none": a run does without evaluation.
        split: for example "validation".
        image_column, label_column: of the data set; None: those with the usual names; `label_column` "none": no labels are read.
        match_names: classes whose names the data set and the model know are matched; False: they are numbered in order.
        num_images: number of images, from the first; None: all.
        batch_size: images in one forward pass.
        num_workers: threads that decode; None: 0 for the zoo's small images, otherwise one for each processor, at most 8.
        streaming: True: each process reads a data set of the Hub while it is downloaded, and nothing is stored. False: the split
            is downloaded once into the Hub's cache and can then be read without a network.

    Raises:
        ValueError: a number out of range, or a part of a split.
    """

    dataset: str | Path | None = AUTO
    split: str = "validation"
    image_column: str | None = None
    label_column: str | None = None
    match_names: bool = True
    num_images: int | None = None
    batch_size: int = 128
    num_workers: int | None = None
    streaming: bool = True

    def __post_init__(self) -> None:
        for name, minimum in {"num_images": 1, "batch_size": 1, "num_workers": 0}.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} is {value}; it must be at least {minimum}")
        check_split(self.split)

    def dataset_of(self, model: nn.Module) -> str | None:
        """The data set for a model; None: none."""
        if self.dataset == AUTO:
            return "imagenet-1k" if getattr(model, "num_classes", None) == 1000 else None
        return None if self.dataset in (None, NONE) else str(self.dataset)

    def why_none(self, model: nn.Module) -> str:
        """Why there is no data set for a model, and how to give one."""
        classes = getattr(model, "num_classes", None)
        why = f"a model of {classes} classes has no usual one" if self.dataset == AUTO else "evaluation is switched off"
        return f"no evaluation data: {why}; evaluate.dataset names a folder of images or a Hub id"

    @property
    def reading(self) -> dict[str, Any]:
        """How the data set's columns and classes are read: keywords of `load_labeled`."""
        return {name: getattr(self, name) for name in ("image_column", "label_column", "match_names")}


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a data set: logits (N, C) float32 and the true labels (N,) int64, -1 without labels, on the CPU."""

    logits: Tensor
    labels: Tensor


@takes_options(EvaluationOptions)
def evaluate(
    model: nn.Module,
    *,
    teacher: nn.Module | None = None,
    options: EvaluationOptions | None = None,
    run: Run | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Return top1, top5 and num_images of `model`; with a teacher also agreement, kl and logits_sqnr_db (see `score`).

    Args:
        model: a timm model or a student, in eval mode; it stays on its device.
        teacher: evaluated on the same images in the same pass, with the transform of `model`.
        options: all options as one object, instead of keywords.
        run: receives the progress; shares the images over processes.
        keywords: the fields of `EvaluationOptions`, where they are documented.

    Raises:
        ValueError: a number out of range; a model in training mode; logits that are not finite; no data set.
        UnlabeledError: the data set has no labels, and there is no teacher to compare with.
        RecipeError, InputError, AccessError: the data; see `vitdfq.data.load_labeled`. RecipeError: a model that gives features.
    """
    options = options or build_options(EvaluationOptions, keywords, where="evaluate")
    models = [model] if teacher is None else [model, teacher]
    predictions = _predict(models, options, run or Run(), needs_labels=teacher is None)
    return score(predictions[0], None if teacher is None else predictions[1].logits)


@takes_options(EvaluationOptions)
def predict(
    model: nn.Module, *, options: EvaluationOptions | None = None, run: Run | None = None, **keywords: Any
) -> Predictions:
    """Return the logits of `model` on every image; arguments and errors are those of `evaluate`.

    Shards of the images are shared over the processes; `run` keeps finished ones.
    """
    options = options or build_options(EvaluationOptions, keywords, where="evaluate")
    return _predict([model], options, run or Run())[0]


def score(predictions: Predictions, teacher_logits: Tensor | None = None) -> dict[str, Any]:
    """Summarize predictions.

    Args:
        predictions: of a model.
        teacher_logits: (N, C) on the same images; None: the result lacks the last three entries.

    Returns:
        top1, top5: percent of images whose label is the predicted class, or among the five most probable classes; None without
            labels.
        num_images: number of images.
        agreement: percent of images for which model and teacher predict the same class.
        kl: KL divergence from the teacher's to the model's class probabilities, mean over images, in nats.
        logits_sqnr_db: 10 log10(sum of squared teacher logits / sum of squared differences); None if the logits are equal.
    """
    logits, labels = predictions.logits, predictions.labels
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits, has_labels = best == labels[:, None], bool((labels != NO_LABEL).all())
    result = {
        "top1": _percent(hits[:, 0]) if has_labels else None,
        "top5": _percent(hits.any(dim=1)) if has_labels else None,
        "num_images": len(labels),
    }
    if teacher_logits is not None:
        signal = teacher_logits.double().square().sum().item()
        noise = (teacher_logits.double() - logits.double()).square().sum().item()
        result["agreement"] = _percent(best[:, 0] == teacher_logits.argmax(dim=1))
        result["kl"] = round(divergence(logits, teacher_logits).item(), 5)
        result["logits_sqnr_db"] = round(10 * math.log10(signal / noise), 4) if signal and noise else None
    return result


def no_score() -> dict[str, None]:
    """What `score` returns with a teacher, for a model that is not evaluated."""
    return dict.fromkeys(("top1", "top5", "num_images", "agreement", "kl", "logits_sqnr_db"))


class UnlabeledError(RecipeError):
    """Images without labels, and no teacher to compare a model with."""


@torch.inference_mode()
def _predict(models: list[nn.Module], options: EvaluationOptions, run: Run, needs_labels: bool = False) -> list[Predictions]:
    """One pass over the images for all models, which share the first one's transform and device."""
    for model in models:
        require_ready(unwrapped(model), "evaluate")
        require_float32(unwrapped(model), "evaluate")
    plain = unwrapped(models[0])  # a compiled model runs as it is; its description is the model's inside
    classes, dataset = Classes.of(plain), options.dataset_of(plain)
    require_classes(plain, "evaluate")
    if dataset is None:
        raise RecipeError(options.why_none(plain))
    if options.num_workers is None:
        options = replace(options, num_workers=0 if dataset.startswith("zoo:") else min(8, os.cpu_count() or 1))
    device = next((parameter.device for parameter in models[0].parameters()), torch.device("cpu"))
    labeled = load_labeled(dataset, options.split, classes, options.streaming, **options.reading)
    if needs_labels and labeled.number_of is None:
        raise UnlabeledError(f"dataset {dataset} has no labels: without them a model can only be compared with its teacher")
    count = _image_count(dataset, labeled.num_rows, options.num_images)
    size = BATCHES_IN_SHARD * options.batch_size
    ranges = (
        [range(sys.maxsize)] if count is None else [range(first, min(first + size, count)) for first in range(0, count, size)]
    )
    shards = {f"rows_{rows.start}_{rows.stop}": rows for rows in ranges}  # one shard, if the number of rows is not known
    shards_here = run.share(run.missing(shards))
    firsts = {shards[name].start for name in shards_here}
    read = batches(
        labeled,
        transform_of(plain),
        batch_size=options.batch_size,
        num_images=count,
        wanted=lambda row: count is None or row // size * size in firsts,
        num_workers=options.num_workers or 0,
    )
    total = 0 if count is None else sum(len(shards[name]) for name in shards_here)
    with run.progress("evaluate", total) as bar, closing(cast(Any, read)):
        predictor = _Predictor(models, read, device, bar)
        try:
            parts = run.compute_missing(shards, lambda name: predictor.next(None if count is None else len(shards[name])))
        except TooFewImagesError as error:
            run.forget()  # a missing file shifts all later rows, so that finished shards may hold others
            few = (
                f"split {options.split!r} is empty"
                if not count
                else f"fewer images than the {count} expected; is a file missing?"
            )
            raise InputError(f"dataset {dataset}: {few}") from error
    labels = torch.cat([part["labels"] for part in parts])
    assert len(labels) == (count or len(labels)), f"{len(labels)} of {count} images"
    predictions = [Predictions(torch.cat([part[f"logits_{index}"] for part in parts]), labels) for index in range(len(models))]
    for logits in (prediction.logits for prediction in predictions):
        broken = int((~logits.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"the model's logits are not finite for {broken} of {len(labels)} images")
    return predictions


class TooFewImagesError(Exception):
    """A data set ended before its last expected row."""


class _Predictor:
    """Reads rows in order and runs the models on them."""

    def __init__(
        self, models: list[nn.Module], read: Iterator[tuple[Tensor, Tensor]], device: torch.device, bar: Progress
    ) -> None:
        self.models, self.read, self.device, self.bar = models, read, device, bar
        self.hits = 0
        self.adaptive: AdaptiveBatchSize | None = None  # starts with as many images as the first batch has

    def next(self, num_rows: int | None) -> dict[str, Tensor]:
        """Logits (num_rows, C) of each model as "logits_0", "logits_1", ..., and "labels" (num_rows,), of the next rows.

        Args:
            num_rows: None: all that are left.

        Raises:
            TooFewImagesError: the data set has no more rows.
        """
        logits, labels, left = [[] for _ in self.models], [], sys.maxsize if num_rows is None else num_rows
        while left:
            batch = next(self.read, None)
            if batch is None and num_rows is None and labels:
                break
            if batch is None:
                raise TooFewImagesError
            images, truth = batch[0].to(self.device, non_blocking=True), batch[1]
            for model_logits, collected in zip(self._logits(images), logits, strict=True):
                collected.append(model_logits)
            labels.append(truth)
            left -= len(truth)
            self.hits += int((logits[0][-1].argmax(dim=1) == truth).sum())
            has_labels = bool((truth != NO_LABEL).all())
            numbers = {"top1": 100 * self.hits / (self.bar.done + len(truth))} if has_labels else {}
            self.bar.advance(len(truth), **numbers)
        joined = {f"logits_{index}": torch.cat(collected) for index, collected in enumerate(logits)}
        return joined | {"labels": torch.cat(labels)}

    def _logits(self, images: Tensor) -> list[Tensor]:
        """Logits (B, C) of each model, on the CPU."""

        def run_models(size: int) -> list[Tensor]:
            return [torch.cat([model(part).float().cpu() for part in images.split(size)]) for model in self.models]

        self.adaptive = self.adaptive or AdaptiveBatchSize(len(images))
        return self.adaptive(run_models)


def _image_count(dataset: str, num_rows: int | None, num_images: int | None) -> int | None:
    """Return how many images to read; None: as many as there are."""
    if num_rows is not None and num_images is not None and num_images > num_rows:
        raise RecipeError(f"evaluate.num_images is {num_images}, but {dataset} has only {num_rows}")
    return num_images or num_rows


def _percent(flags: Tensor) -> float:
    """Percentage of true flags, from an integer count."""
    return 100 * int(flags.sum()) / len(flags)
