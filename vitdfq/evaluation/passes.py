"""One pass over a set of images for several models: in shards, which are shared over processes and kept when a run is killed."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitdfq.common.batch_size import AdaptiveBatchSize
from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.tensor_dicts import Tensors
from vitdfq.data import NO_LABEL, Labeled, batches, transform_of
from vitdfq.evaluation.options import EvaluationOptions
from vitdfq.models import unwrapped
from vitdfq.models.block_maps import in_one
from vitdfq.runtime.run import Progress, Run

BATCHES_IN_SHARD = 8  # a shard is the unit that is saved, and shared over the processes

Keep = Callable[[Sequence[Tensor]], Tensors]  # outputs of all models on a batch -> what is kept of them, a row an image


@dataclass(frozen=True)
class Images:
    """The images of one pass.

    Attributes:
        labeled: their rows.
        split: for messages.
        num_images: how many, from the first; None: all.
        key: of `num_images` in a recipe.
        title: of the progress.
    """

    labeled: Labeled
    split: str
    num_images: int | None
    key: str = "evaluate.num_images"
    title: str = "evaluate"


@torch.inference_mode()
def one_pass(models: list[nn.Module], images: Images, options: EvaluationOptions, run: Run, keep: Keep) -> Tensors:
    """Run all models on the images, with the first one's transform and on its device.

    Returns:
        what `keep` returned, all rows, in the order of the images, and "labels" (N,) int64.

    Raises:
        RecipeError: fewer images than `num_images`.
        InputError: the set ends early.
    """
    labeled, dataset = images.labeled, images.labeled.name
    if options.num_workers is None:
        options = replace(options, num_workers=0 if dataset.startswith("zoo:") else min(8, os.cpu_count() or 1))
    device = next((parameter.device for parameter in models[0].parameters()), torch.device("cpu"))
    count = _image_count(images)
    size = BATCHES_IN_SHARD * options.batch_size
    ranges = (
        [range(sys.maxsize)] if count is None else [range(first, min(first + size, count)) for first in range(0, count, size)]
    )
    shards = {f"rows_{rows.start}_{rows.stop}": rows for rows in ranges}  # one shard, if the number of rows is not known
    shards_here = run.share(run.missing(shards))
    firsts = {shards[name].start for name in shards_here}
    read = batches(
        labeled,
        transform_of(unwrapped(models[0])),
        batch_size=options.batch_size,
        num_images=count,
        wanted=lambda row: count is None or row // size * size in firsts,
        num_workers=options.num_workers or 0,
    )
    total = 0 if count is None else sum(len(shards[name]) for name in shards_here)
    with run.progress(images.title, total) as bar, closing(cast(Any, read)):
        passes = _Passes(models, read, device, bar, keep)
        try:
            parts = run.compute_missing(shards, lambda name: passes.next(None if count is None else len(shards[name])))
        except TooFewImagesError as error:
            run.forget()  # a missing file shifts all later rows, so that finished shards may hold others
            few = (
                f"split {images.split!r} is empty" if not count else f"fewer images than the {count} expected; is a file missing?"
            )
            raise InputError(f"dataset {dataset}: {few}") from error
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    num_rows = len(joined["labels"])
    assert num_rows == (count or num_rows), f"{num_rows} of {count} images"
    return joined


class TooFewImagesError(Exception):
    """A data set ended before its last expected row."""


class _Passes:
    """Reads rows in order and runs the models on them."""

    def __init__(
        self, models: list[nn.Module], read: Iterator[tuple[Tensor, Tensor]], device: torch.device, bar: Progress, keep: Keep
    ) -> None:
        self.models, self.read, self.device, self.bar, self.keep = models, read, device, bar, keep
        self.sums: dict[str, float] = {}
        self.adaptive: AdaptiveBatchSize | None = None  # starts with as many images as the first batch has

    def next(self, num_rows: int | None) -> Tensors:
        """What is kept of the next rows, and "labels" (num_rows,).

        Args:
            num_rows: None: all that are left.

        Raises:
            TooFewImagesError: the data set has no more rows.
        """
        batches_kept: list[Tensors] = []
        left = sys.maxsize if num_rows is None else num_rows
        while left:
            batch = next(self.read, None)
            if batch is None and num_rows is None and batches_kept:
                break
            if batch is None:
                raise TooFewImagesError
            images, truth = batch[0].to(self.device, non_blocking=True), batch[1]
            kept = self._run(images) | {"labels": truth}
            batches_kept.append(kept)
            left -= len(truth)
            self.bar.advance(len(truth), **self._numbers(kept))
        return {name: torch.cat([kept[name] for kept in batches_kept]) for name in batches_kept[0]}

    def _run(self, images: Tensor) -> Tensors:
        """What is kept of the outputs of all models on images (B, 3, H, W), on the CPU."""

        def run_models(size: int) -> Tensors:
            parts = [self.keep([in_one(model(part)).float() for model in self.models]) for part in images.split(size)]
            return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}

        self.adaptive = self.adaptive or AdaptiveBatchSize(len(images))
        return self.adaptive(run_models)

    def _numbers(self, kept: Tensors) -> dict[str, float]:
        """The first model's top-1, or the cosine of its features to its teacher's, on all rows of this process so far."""
        truth, done = kept["labels"], self.bar.done + len(kept["labels"])
        if "logits_0" in kept and bool((truth != NO_LABEL).all()):
            name, value = "top1", 100.0 * int((kept["logits_0"].argmax(dim=1) == truth).sum())
        elif "comparison" in kept:
            name, value = "cosine", kept["comparison"][:, 0].sum().item()
        else:
            return {}
        self.sums[name] = self.sums.get(name, 0.0) + value
        return {name: self.sums[name] / done}


def _image_count(images: Images) -> int | None:
    """Return how many images to read; None: as many as there are."""
    num_rows, num_images = images.labeled.num_rows, images.num_images
    if num_rows is not None and num_images is not None and num_images > num_rows:
        raise RecipeError(f"{images.key} is {num_images}, but {images.labeled.name} has only {num_rows}")
    return num_images or num_rows
