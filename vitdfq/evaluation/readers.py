"""Classes from features: a linear head, the embeddings of texts, or k-NN."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.common.errors import RecipeError
from vitdfq.data import Classes, has_split_beside, load_labeled, same_split
from vitdfq.evaluation.files import read_linear_head, read_text_embeddings
from vitdfq.evaluation.knn import Bank, vote
from vitdfq.evaluation.options import READERS, EvaluationOptions, KnnOptions
from vitdfq.evaluation.passes import Images, Keep, one_pass
from vitdfq.models import feature_width, gives
from vitdfq.runtime.run import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """Reads classes from the features of one or several models.

    Attributes:
        name: one of `options.READERS`.
        classes: of the labels that it meets; None: a set's own labels.
        logits: (number of the model, features (N, D)) -> (N, C).
        numbers_of: labels (N,) as the set has them -> the columns of the logits, -1 without a label.
    """

    name: str
    classes: Classes | None
    logits: Callable[[int, Tensor], Tensor]
    numbers_of: Callable[[Tensor], Tensor] = lambda labels: labels


def check_reading(model: Any, options: EvaluationOptions) -> None:
    """Check before any work that the options can read classes from what a model gives; only files and local folders are read.

    Raises:
        RecipeError: the model gives classes itself; neighbors that are the evaluated images.
        InputError: the file of a head or of texts, see `files`.
    """
    given = next((name for name in READERS if getattr(options, name) is not None), None)
    if given is None:
        return
    if gives(model) == "classes":
        raise RecipeError(f"evaluate.{given} reads classes from features, but {type(model).__name__} gives classes itself")
    file_reader(model, options)
    dataset, neighbors = options.dataset_of(model), options.neighbors
    if dataset is not None and neighbors is not None:
        check_neighbors(dataset, options, neighbors)


def file_reader(model: Any, options: EvaluationOptions) -> Reader | None:
    """Return the reader of a linear head or of text embeddings; None: no file is given.

    Raises:
        InputError: see `files`.
    """
    path = options.file
    if path is None:
        return None
    if options.linear_head is not None:
        weight, bias = read_linear_head(path, feature_width(model))
        return Reader("linear_head", Classes(len(weight)), lambda index, features: F.linear(features, weight, bias))
    texts = read_text_embeddings(path, feature_width(model))
    return Reader("text_embeddings", Classes(len(texts)), lambda index, features: F.linear(F.normalize(features, dim=1), texts))


def knn_reader(
    models: list[nn.Module], dataset: str, options: EvaluationOptions, wanted: KnnOptions, run: Run, keep: Keep
) -> Reader:
    """Return the reader by k-NN: all models give the features of the neighbors, each to a bank of its own.

    Args:
        models: as evaluated.
        dataset, options: of the evaluation.
        wanted: the options of k-NN.
        run: keeps finished shards of the bank.
        keep: entries "features_0", "features_1", ... of the outputs.

    Raises:
        RecipeError: no such split, no labels, or fewer than k images.
    """
    name = wanted.dataset or dataset
    labeled = load_labeled(name, wanted.split, None, options.streaming, **options.reading)
    if labeled.number_of is None:
        raise RecipeError(f"evaluate.knn: dataset {name}, split {wanted.split!r} has no labels, so its images cannot vote")
    images = Images(labeled, wanted.split, wanted.num_images, "evaluate.knn.num_images", "k-NN's neighbors")
    kept = one_pass(models, images, options, run, keep)
    if len(kept["labels"]) < wanted.k:
        raise RecipeError(f"evaluate.knn.k is {wanted.k}, but there are only {len(kept['labels'])} images of {name} to vote")
    device = next(models[0].parameters()).device
    banks = [Bank.of(kept[f"features_{index}"], kept["labels"], device) for index in range(len(models))]

    def numbers_of(labels: Tensor) -> Tensor:
        numbers = banks[0].numbers_of(labels)
        unknown = int((numbers == len(banks[0].classes)).sum())
        if unknown == len(labels):
            raise RecipeError(f"evaluate.knn: no label of {dataset} is among those of the neighbors in {name}")
        if unknown:
            logger.warning(
                f"{unknown} of {len(labels)} images have a label that no neighbor has: k-NN cannot be right about them"
            )
        return numbers

    return Reader("knn", None, lambda index, features: vote(features, banks[index], wanted.k, run), numbers_of)


def check_neighbors(dataset: str, options: EvaluationOptions, wanted: KnnOptions) -> None:
    """Refuse neighbors that are the evaluated images: each would find itself. Nothing is opened but a local set's folder.

    Raises:
        RecipeError: with the key that names others.
    """
    if wanted.dataset not in (None, dataset):
        return
    if same_split(wanted.split, options.split) or not has_split_beside(dataset, options.split, wanted.split):
        raise RecipeError(
            f"evaluate.knn: dataset {dataset} has no split {wanted.split!r} beside {options.split!r}, and no image may be "
            "its own neighbor; name another one in evaluate.knn.split, or another set in evaluate.knn.dataset"
        )
