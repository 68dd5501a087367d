"""What models give on a set of images: logits, or features and the classes that are read from them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitdfq.common.errors import RecipeError
from vitdfq.common.tensor_dicts import Tensors
from vitdfq.data import Classes, load_labeled
from vitdfq.evaluation.features import compare, pooled, tokens_of
from vitdfq.evaluation.options import EvaluationOptions
from vitdfq.evaluation.passes import Images, Keep, one_pass
from vitdfq.evaluation.predictions import AnyPredictions, FeaturePredictions, Predictions
from vitdfq.evaluation.readers import Reader, check_reading, file_reader, knn_reader
from vitdfq.models import gives, require_float32, require_ready, unwrapped
from vitdfq.runtime.run import Run


class UnlabeledError(RecipeError):
    """A model that is to be evaluated without its teacher, and whose classes or labels are not known."""


def predict_all(models: list[nn.Module], options: EvaluationOptions, run: Run, alone: bool = False) -> Sequence[AnyPredictions]:
    """Return what each model gives, from one pass over the images with the first one's transform.

    Args:
        models: a model, or a model and its teacher.
        options: of the evaluation.
        run: see `predict`.
        alone: accuracy is all that can be measured, so labels are needed.
    """
    for model in models:
        require_ready(unwrapped(model), "evaluate")
        require_float32(unwrapped(model), "evaluate")
    plain = unwrapped(models[0])
    of_model = Classes.of(plain)
    kinds = [gives(unwrapped(model)) for model in models]
    if len(set(kinds)) > 1:
        raise ValueError(f"evaluate: the model gives {kinds[0]} and its teacher {kinds[1]}")
    check_reading(plain, options)
    dataset = options.dataset_of(plain)
    if dataset is None:
        raise RecipeError(options.why_none(plain))
    if kinds[0] == "features":
        return _features(models, dataset, options, run, alone)
    labeled = load_labeled(dataset, options.split, of_model, options.streaming, **options.reading)
    if alone and labeled.number_of is None:
        raise UnlabeledError(f"dataset {dataset} has no labels: without them a model can only be compared with its teacher")
    kept = one_pass(models, Images(labeled, options.split, options.num_images), options, run, _numbered("logits"))
    _require_finite(kept, "logits")
    return [Predictions(kept[f"logits_{index}"], kept["labels"]) for index in range(len(models))]


@torch.inference_mode()
def _features(
    models: list[nn.Module], dataset: str, options: EvaluationOptions, run: Run, alone: bool
) -> Sequence[FeaturePredictions]:
    """The features of each model, and the classes that the options read from them."""
    plain = [unwrapped(model) for model in models]
    reader, neighbors = file_reader(plain[0], options), options.neighbors
    if alone and reader is None and neighbors is None:
        raise UnlabeledError(
            "a model that gives features can only be compared with its teacher, unless evaluate.knn, evaluate.linear_head or "
            "evaluate.text_embeddings reads classes"
        )

    def keep(outputs: Sequence[Tensor]) -> Tensors:
        vectors = {f"features_{index}": pooled(plain[index], output) for index, output in enumerate(outputs)}
        if len(outputs) == 1:
            return vectors
        tokens = [tokens_of(model, output) for model, output in zip(plain, outputs, strict=True)]
        return vectors | {"comparison": compare(*tokens)}

    if neighbors is not None:
        bank_run = run.part("bank")
        reader = knn_reader(models, dataset, options, neighbors, bank_run, keep)
    classes = reader.classes if reader else None
    labeled = load_labeled(dataset, options.split, classes, options.streaming, **options.reading)
    if alone and labeled.number_of is None:
        raise UnlabeledError(f"dataset {dataset} has no labels: without them a model can only be compared with its teacher")
    kept = one_pass(models, Images(labeled, options.split, options.num_images), options, run, keep)
    _require_finite(kept, "features")
    return _read(kept, len(models), reader)


def _read(kept: Tensors, num_models: int, reader: Reader | None) -> list[FeaturePredictions]:
    """Read classes from what was kept of the outputs of a model, and of its teacher's if there are two."""
    labels = kept["labels"] if reader is None else reader.numbers_of(kept["labels"])
    predictions = []
    for index in range(num_models):
        features = kept[f"features_{index}"]
        logits = None if reader is None else reader.logits(index, features)
        compared = kept.get("comparison") if index == 0 else None
        predictions.append(FeaturePredictions(features, labels, reader.name if reader else None, logits, compared))
    return predictions


def _numbered(name: str) -> Keep:
    """Keep all outputs, as "NAME_0", "NAME_1", ..."""
    return lambda outputs: {f"{name}_{index}": output for index, output in enumerate(outputs)}


def _require_finite(kept: Tensors, name: str) -> None:
    for key, values in kept.items():
        if not key.startswith(name):
            continue
        broken = int((~values.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"the model's {name} are not finite for {broken} of {len(values)} images")
