"""evaluate(): how often a model is right on labelled images, and how close it stays to its teacher."""

import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.data import batches, load_labelled, transform_of
from vitdfq.runtime import distributed, progress
from vitdfq.runtime.batch_size import AdaptiveBatchSize
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.training.trainable import divergence

BATCHES_IN_SHARD = 8  # rows are kept, and shared out over processes, so many batches at a time


@dataclass(frozen=True)
class Predictions:
    """What a model said about a set: logits (N, C) float32 and the true labels (N,) int64, on the CPU."""

    logits: Tensor
    labels: Tensor


def evaluate(
    model: nn.Module,
    *,
    dataset: str = "imagenet-1k",
    split: str = "validation",
    num_images: int | None = None,
    teacher: nn.Module | None = None,
    batch_size: int = 128,
    num_workers: int | None = None,
    streaming: bool = True,
) -> dict[str, Any]:
    """Return top1, top5 and num_images of `model`; with a teacher also agreement, kl and logits_sqnr_db (see `score`).

    Args:
        model: a timm model or a student; it must be in eval mode and stays where it is.
        dataset: `zoo:fashion-mnist`, `imagenet-1k`, a Hub id, or a folder of parquet files, tar shards or class folders.
        split: for example "validation".
        num_images: only the first so many.
        teacher: evaluated on the same images in the same pass.
        batch_size: images in one forward pass.
        num_workers: threads that decode; None: none for the zoo's small images, else one a processor, at most 8.
        streaming: a Hub set is read while it arrives, by each process for itself, and nothing is kept; False: the split is
            fetched into the Hub's cache first, once, and can then be read without a network.

    Raises:
        ValueError: a number out of range; a model in training mode; logits that are not finite.
        RecipeError, InputError, AccessError: the data; see `vitdfq.data.load_labelled`.
    """
    models = [model] if teacher is None else [model, teacher]
    found = _predict(models, dataset, split, num_images, batch_size, num_workers, streaming)
    return score(found[0], None if teacher is None else found[1].logits)


def predict(
    model: nn.Module,
    *,
    dataset: str = "imagenet-1k",
    split: str = "validation",
    num_images: int | None = None,
    batch_size: int = 128,
    num_workers: int | None = None,
    streaming: bool = True,
    shelf: PartialResults | None = None,
) -> Predictions:
    """Return what `model` says about every image; arguments and errors are those of `evaluate`.

    Shards of the images are shared out over the processes; `shelf` keeps those that are finished.
    """
    return _predict([model], dataset, split, num_images, batch_size, num_workers, streaming, shelf)[0]


def score(predictions: Predictions, teacher_logits: Tensor | None = None) -> dict[str, Any]:
    """Sum predictions up.

    Returns:
        top1, top5: percent of images whose label is the first, or among the first five.
        num_images: how many there were.
        agreement: percent of images on which the teacher's first class is the same.
        kl: divergence from the teacher's to the model's class probabilities, mean over images, nats; finer than counts.
        logits_sqnr_db: 10 log10(sum of squared teacher logits / sum of squared differences); None when equal.
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


def check_numbers(num_images: int | None = None, batch_size: int = 1, num_workers: int | None = None) -> None:
    """Raise ValueError for a count that is too small."""
    least = {"num_images": (num_images, 1), "batch_size": (batch_size, 1), "num_workers": (num_workers, 0)}
    for name, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise ValueError(f"{name} is {value}; it must be at least {smallest}")


@torch.inference_mode()
def _predict(
    models: list[nn.Module],
    dataset: str,
    split: str,
    num_images: int | None,
    batch_size: int,
    num_workers: int | None,
    streaming: bool,
    shelf: PartialResults | None = None,
) -> list[Predictions]:
    """One pass over the images for all models, which share the first one's transform and device."""
    check_numbers(num_images, batch_size, num_workers)
    if any(model.training for model in models):
        raise ValueError("the model is in training mode: call model.eval() first")
    if num_workers is None:
        num_workers = 0 if dataset.startswith("zoo:") else min(8, os.cpu_count() or 1)
    device = next((parameter.device for parameter in models[0].parameters()), torch.device("cpu"))
    labelled = load_labelled(dataset, split, _num_classes(models[0]), streaming)
    expected = _expected(dataset, labelled.num_rows, num_images)
    size = BATCHES_IN_SHARD * batch_size
    shards = {f"rows_{own.start}_{own.stop}": own for own in _cut(expected, size)}
    shelf = shelf or PartialResults()
    own = distributed.share(shelf.missing(shards))
    firsts = {shards[name].start for name in own}
    read = batches(
        labelled,
        transform_of(models[0]),
        batch_size=batch_size,
        num_images=expected,
        wanted=lambda row: row // size * size in firsts,
        num_workers=num_workers,
    )
    with progress.bar("evaluate", total=sum(len(shards[name]) for name in own)) as bar, closing(read):
        reading = _Reading(models, read, device, bar)
        try:
            made = shelf.all(shards, lambda name: reading.next(len(shards[name])))
        except TooFewError as error:  # what was read before may be the rows of others
            shelf.clear()
            raise InputError(f"dataset {dataset}: fewer images than the {expected} expected; is a file missing?") from error
    labels = torch.cat([part["labels"] for part in made])
    assert len(labels) == expected, f"{len(labels)} of {expected} images"
    found = [Predictions(torch.cat([part[f"logits_{place}"] for part in made]), labels) for place in range(len(models))]
    for predictions in found:
        broken = int((~predictions.logits.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"the model's logits are not finite for {broken} of {expected} images")
    return found


class TooFewError(Exception):
    """A set of images ended before it should."""


class _Reading:
    """Rows in their order, and what the models say about them."""

    def __init__(
        self, models: list[nn.Module], read: Iterator[tuple[Tensor, Tensor]], device: torch.device, bar: progress.Bar
    ) -> None:
        self.models, self.read, self.device, self.bar = models, read, device, bar
        self.hits = 0
        self.fitting: AdaptiveBatchSize | None = None  # as many images at a time as the first batch has

    def next(self, num_rows: int) -> dict[str, Tensor]:
        """The next rows.

        Raises:
            TooFewError: the set has fewer than it says.
        """
        logits, labels, left = [[] for _ in self.models], [], num_rows
        while left:
            batch = next(self.read, None)
            if batch is None:
                raise TooFewError
            images, truth = batch[0].to(self.device, non_blocking=True), batch[1]
            for own, collected in zip(self._say(images), logits, strict=True):
                collected.append(own)
            labels.append(truth)
            left -= len(truth)
            self.hits += int((logits[0][-1].argmax(dim=1) == truth).sum())
            self.bar.advance(len(truth), top1=100 * self.hits / (self.bar.done + len(truth)))
        found = {f"logits_{place}": torch.cat(collected) for place, collected in enumerate(logits)}
        return found | {"labels": torch.cat(labels)}

    def _say(self, images: Tensor) -> list[Tensor]:
        """Each model's logits (B, C), on the CPU."""

        def say(size: int) -> list[Tensor]:
            return [torch.cat([model(part).float().cpu() for part in images.split(size)]) for model in self.models]

        self.fitting = self.fitting or AdaptiveBatchSize(len(images))
        return self.fitting(say)


def _cut(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _expected(dataset: str, num_rows: int | None, num_images: int | None) -> int:
    if num_rows is None and num_images is None:
        raise RecipeError(f"dataset {dataset} does not say how many rows it has; set evaluate.num_images")
    if num_rows is not None and num_images is not None and num_images > num_rows:
        raise RecipeError(f"evaluate.num_images is {num_images}, but {dataset} has only {num_rows}")
    return num_images or num_rows


def _num_classes(model: nn.Module) -> int:
    num_classes = getattr(model, "num_classes", None)
    if not isinstance(num_classes, int):
        raise ValueError(f"{type(model).__name__} has no num_classes; evaluate takes timm models and students")
    return num_classes


def _percent(flags: Tensor) -> float:
    """Share of true flags, counted in integers."""
    return 100 * int(flags.sum()) / len(flags)
