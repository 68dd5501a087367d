"""evaluate(): accuracy of a model on labeled images, and its agreement with its teacher."""

import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitdfq.common.batch_size import AdaptiveBatchSize
from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.options import build_options, takes_options
from vitdfq.data import batches, load_labeled, transform_of
from vitdfq.models import require_classes
from vitdfq.runtime.run import Progress, Run
from vitdfq.training.trainable import divergence

BATCHES_IN_SHARD = 8  # a shard is the unit that is saved, and shared over the processes


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of `evaluate`.

    Attributes:
        dataset: `zoo:fashion-mnist`, `imagenet-1k`, a Hub id, or a folder of parquet files, tar shards or class folders.
        split: for example "validation".
        num_images: number of images, from the first; None: all.
        batch_size: images in one forward pass.
        num_workers: threads that decode; None: 0 for the zoo's small images, otherwise one for each processor, at most 8.
        streaming: True: each process reads a data set of the Hub while it is downloaded, and nothing is stored. False: the split
            is downloaded once into the Hub's cache and can then be read without a network.

    Raises:
        ValueError: a number out of range.
    """

    dataset: str = "imagenet-1k"
    split: str = "validation"
    num_images: int | None = None
    batch_size: int = 128
    num_workers: int | None = None
    streaming: bool = True

    def __post_init__(self) -> None:
        for name, minimum in {"num_images": 1, "batch_size": 1, "num_workers": 0}.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} is {value}; it must be at least {minimum}")


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a data set: logits (N, C) float32 and the true labels (N,) int64, on the CPU."""

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
        ValueError: a number out of range; a model in training mode; logits that are not finite.
        RecipeError, InputError, AccessError: the data; see `vitdfq.data.load_labeled`. RecipeError: a model that gives features.
    """
    options = options or build_options(EvaluationOptions, keywords, where="evaluate")
    models = [model] if teacher is None else [model, teacher]
    predictions = _predict(models, options, run or Run())
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
        top1, top5: percent of images whose label is the predicted class, or among the five most probable classes.
        num_images: number of images.
        agreement: percent of images for which model and teacher predict the same class.
        kl: KL divergence from the teacher's to the model's class probabilities, mean over images, in nats.
        logits_sqnr_db: 10 log10(sum of squared teacher logits / sum of squared differences); None if the logits are equal.
    """
    logits, labels = predictions.logits, predictions.labels
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    result = {
        "top1": _percent(hits[:, 0]),
        "top5": _percent(hits.any(dim=1)),
        "num_images": len(labels),
    }
    if teacher_logits is not None:
        signal = teacher_logits.double().square().sum().item()
        noise = (teacher_logits.double() - logits.double()).square().sum().item()
        result["agreement"] = _percent(best[:, 0] == teacher_logits.argmax(dim=1))
        result["kl"] = round(divergence(logits, teacher_logits).item(), 5)
        result["logits_sqnr_db"] = round(10 * math.log10(signal / noise), 4) if signal and noise else None
    return result


@torch.inference_mode()
def _predict(models: list[nn.Module], options: EvaluationOptions, run: Run) -> list[Predictions]:
    """One pass over the images for all models, which share the first one's transform and device."""
    if any(model.training for model in models):
        raise ValueError("the model is in training mode: call model.eval() first")
    dataset = options.dataset
    if options.num_workers is None:
        options = replace(options, num_workers=0 if dataset.startswith("zoo:") else min(8, os.cpu_count() or 1))
    device = next((parameter.device for parameter in models[0].parameters()), torch.device("cpu"))
    labeled = load_labeled(dataset, options.split, _num_classes(models[0]), options.streaming)
    count = _image_count(dataset, labeled.num_rows, options.num_images)
    size = BATCHES_IN_SHARD * options.batch_size
    ranges = [range(first, min(first + size, count)) for first in range(0, count, size)]
    shards = {f"rows_{rows.start}_{rows.stop}": rows for rows in ranges}
    shards_here = run.share(run.missing(shards))
    firsts = {shards[name].start for name in shards_here}
    read = batches(
        labeled,
        transform_of(models[0]),
        batch_size=options.batch_size,
        num_images=count,
        wanted=lambda row: row // size * size in firsts,
        num_workers=options.num_workers or 0,
    )
    total = sum(len(shards[name]) for name in shards_here)
    with run.progress("evaluate", total) as bar, closing(cast(Any, read)):
        predictor = _Predictor(models, read, device, bar)
        try:
            parts = run.compute_missing(shards, lambda name: predictor.next(len(shards[name])))
        except TooFewImagesError as error:
            run.forget()  # a missing file shifts all later rows, so that finished shards may hold others
            raise InputError(f"dataset {dataset}: fewer images than the {count} expected; is a file missing?") from error
    labels = torch.cat([part["labels"] for part in parts])
    assert len(labels) == count, f"{len(labels)} of {count} images"
    predictions = [Predictions(torch.cat([part[f"logits_{index}"] for part in parts]), labels) for index in range(len(models))]
    for logits in (prediction.logits for prediction in predictions):
        broken = int((~logits.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"the model's logits are not finite for {broken} of {count} images")
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

    def next(self, num_rows: int) -> dict[str, Tensor]:
        """Logits (num_rows, C) of each model as "logits_0", "logits_1", ..., and "labels" (num_rows,), of the next rows.

        Raises:
            TooFewImagesError: the data set has no more rows.
        """
        logits, labels, left = [[] for _ in self.models], [], num_rows
        while left:
            batch = next(self.read, None)
            if batch is None:
                raise TooFewImagesError
            images, truth = batch[0].to(self.device, non_blocking=True), batch[1]
            for model_logits, collected in zip(self._logits(images), logits, strict=True):
                collected.append(model_logits)
            labels.append(truth)
            left -= len(truth)
            self.hits += int((logits[0][-1].argmax(dim=1) == truth).sum())
            self.bar.advance(len(truth), top1=100 * self.hits / (self.bar.done + len(truth)))
        joined = {f"logits_{index}": torch.cat(collected) for index, collected in enumerate(logits)}
        return joined | {"labels": torch.cat(labels)}

    def _logits(self, images: Tensor) -> list[Tensor]:
        """Logits (B, C) of each model, on the CPU."""

        def run_models(size: int) -> list[Tensor]:
            return [torch.cat([model(part).float().cpu() for part in images.split(size)]) for model in self.models]

        self.adaptive = self.adaptive or AdaptiveBatchSize(len(images))
        return self.adaptive(run_models)


def _image_count(dataset: str, num_rows: int | None, num_images: int | None) -> int:
    if num_rows is None and num_images is None:
        raise RecipeError(f"dataset {dataset} does not say how many rows it has; set evaluate.num_images")
    if num_rows is not None and num_images is not None and num_images > num_rows:
        raise RecipeError(f"evaluate.num_images is {num_images}, but {dataset} has only {num_rows}")
    count = num_images or num_rows
    assert count is not None
    return count


def _num_classes(model: nn.Module) -> int:
    num_classes = getattr(model, "num_classes", None)
    if not isinstance(num_classes, int):
        raise ValueError(f"{type(model).__name__} has no num_classes; evaluate takes timm models and students")
    require_classes(model, "evaluate")
    return num_classes


def _percent(flags: Tensor) -> float:
    """Percentage of true flags, from an integer count."""
    return 100 * int(flags.sum()) / len(flags)
