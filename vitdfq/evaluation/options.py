"""The options of `evaluate`: the section of that name in a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vitdfq.common.options import build_options, check_counts
from vitdfq.data import check_split
from vitdfq.models import gives

AUTO = "auto"  # as a dataset: ImageNet-1k for a model with its number of classes, else none
NONE = "none"
HEAD = "head"  # what reads the classes of a model that gives them
READERS = ("knn", "linear_head", "text_embeddings")  # options that read classes from features; a run has one at most


@dataclass(frozen=True, kw_only=True)
class KnnOptions:
    """Options of k-NN classification, `evaluate: {knn: {...}}`, after DINO's protocol (arXiv 2104.14294).

    Attributes:
        dataset: whose labeled images are the neighbors, any form of `EvaluationOptions.dataset`; None: the set that is evaluated.
        split: of that set; other images than those that are evaluated.
        k: number of neighbors that vote, each with the weight exp(cosine similarity / 0.07).
        num_images: number of images, from the first; None: all.

    Raises:
        ValueError: a number out of range, or a part of a split.
    """

    dataset: str | None = None
    split: str = "train"
    k: int = 20
    num_images: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "k", *(("num_images",) if self.num_images is not None else ()))
        check_split(self.split)


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
        knn: for a model that gives features: classes by k-NN, see `KnnOptions`; {} takes their defaults. Each model is asked for
            the neighbors' features itself, so a student is compared with a bank of its own.
        linear_head: for a model that gives features: classes by a linear layer, a safetensors file of `weight` (C, D) and, if it
            has one, `bias` (C,).
        text_embeddings: for CLIP and SigLIP: classes by the cosine of the features to texts, a safetensors file of one tensor
            (C, D), normalized here, and, if it has one, the factor `logit_scale` (a single number; 100 without it).

    Raises:
        ValueError: a number out of range, a part of a split, or several of the last three.
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
    knn: Mapping[str, Any] | None = None
    linear_head: str | Path | None = None
    text_embeddings: str | Path | None = None

    def __post_init__(self) -> None:
        for name, minimum in {"num_images": 1, "batch_size": 1, "num_workers": 0}.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} is {value}; it must be at least {minimum}")
        check_split(self.split)
        given = [name for name in READERS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each read classes from features; give one of them")
        _ = self.neighbors

    @property
    def neighbors(self) -> KnnOptions | None:
        """The options of k-NN; None: it is not asked for."""
        return None if self.knn is None else build_options(KnnOptions, self.knn, where="knn")

    def read_by(self, model: nn.Module) -> str | None:
        """What reads the classes of a model: its "head", one of READERS for features, or None: nothing does."""
        if gives(model) == "classes":
            return HEAD
        return next((name for name in READERS if getattr(self, name) is not None), None)

    @property
    def file(self) -> Path | None:
        """The file of the head or of the text embeddings; None: there is none."""
        file = self.linear_head if self.linear_head is not None else self.text_embeddings
        return None if file is None else Path(file).expanduser()

    def dataset_of(self, model: nn.Module) -> str | None:
        """The data set for a model; None: none."""
        if self.dataset == AUTO:
            has_usual = getattr(model, "num_classes", None) == 1000 and gives(model) == "classes"
            return "imagenet-1k" if has_usual else None
        return None if self.dataset in (None, NONE) else str(self.dataset)

    def why_none(self, model: nn.Module) -> str:
        """Why there is no data set for a model, and how to give one."""
        what = f"of {getattr(model, 'num_classes', None)} classes" if gives(model) == "classes" else "that gives features"
        why = f"a model {what} has no usual one" if self.dataset == AUTO else "evaluation is switched off"
        return f"no evaluation data: {why}; evaluate.dataset names a folder of images or a Hub id"

    @property
    def reading(self) -> dict[str, Any]:
        """How the data set's columns and classes are read: keywords of `load_labeled`."""
        return {name: getattr(self, name) for name in ("image_column", "label_column", "match_names")}
