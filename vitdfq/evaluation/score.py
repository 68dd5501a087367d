"""Numbers from predictions: accuracy, agreement with the teacher, and the distance of features."""

import math
from typing import Any

from torch import Tensor

from vitdfq.data import NO_LABEL
from vitdfq.evaluation.features import compare
from vitdfq.evaluation.predictions import AnyPredictions, FeaturePredictions, Predictions
from vitdfq.training.output_distance import decibels
from vitdfq.training.trainable import divergence

CLASS_KEYS = ("top1", "top5", "num_images", "agreement", "kl", "logits_sqnr_db")
DISTANCE_KEYS = ("cosine", "relative_error", "features_sqnr_db")


def score(predictions: Predictions, teacher_logits: Tensor | None = None) -> dict[str, Any]:
    """Summarize predictions of classes.

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
    result = _accuracy(predictions.logits, predictions.labels)
    if teacher_logits is not None:
        logits = predictions.logits
        signal = teacher_logits.double().square().sum().item()
        ratio = decibels(signal, (teacher_logits.double() - logits.double()).square().sum().item())
        result["agreement"] = _agreement(logits, teacher_logits)
        result["kl"] = round(divergence(logits, teacher_logits).item(), 5)
        result["logits_sqnr_db"] = None if ratio is None else round(ratio, 4)
    return result


def summarize(predictions: AnyPredictions, teacher: AnyPredictions | None = None) -> dict[str, Any]:
    """Summarize predictions of classes (see `score`) or of features.

    Args:
        predictions: of a model.
        teacher: predictions of its teacher, of the same kind, on the same images; None: what needs them is left out.

    Returns:
        of features: the keys of `score`, None for what no classes were read for (of k-NN also kl and logits_sqnr_db, since votes
        are no logits), and with a teacher
        cosine: cosine similarity of the output to the teacher's, mean over tokens, where it has several, and over images.
        relative_error: |x - t| / |t| over all images, t the teacher's output.
        features_sqnr_db: 10 log10(|t|² / |x - t|²), None if the outputs are equal.
        read_by: what read the classes: "knn", "linear_head" or "text_embeddings"; None: nothing did.
    """
    if isinstance(predictions, Predictions):
        assert teacher is None or isinstance(teacher, Predictions)
        return score(predictions, None if teacher is None else teacher.logits)
    assert teacher is None or isinstance(teacher, FeaturePredictions)
    result = _classes_read(predictions, None if teacher is None else teacher.logits)
    if teacher is not None:
        compared = predictions.comparison
        if compared is None:
            compared = compare(predictions.features[:, None], teacher.features[:, None])
        result |= {key: None for key in CLASS_KEYS if key not in result} | _distance(compared)
    return result | {"read_by": predictions.read_by}


def feature_distance(outputs: Tensor, target: Tensor) -> dict[str, Any]:
    """Return num_images, cosine, relative_error and features_sqnr_db (see `summarize`) of tensors (B, D) or (B, ..., D)."""
    flat = [value[:, None].flatten(1, -2) for value in (outputs, target)]
    return {"num_images": len(outputs)} | _distance(compare(*flat))


def no_score(kind: str = "classes") -> dict[str, None]:
    """What `summarize` returns with a teacher, for a model that is not evaluated and gives "classes" or "features"."""
    return dict.fromkeys(CLASS_KEYS if kind == "classes" else (*CLASS_KEYS, *DISTANCE_KEYS, "read_by"))


def _classes_read(predictions: FeaturePredictions, teacher_logits: Tensor | None) -> dict[str, Any]:
    """The entries of `score`, from classes that were read from features."""
    logits, labels = predictions.logits, predictions.labels
    if logits is None:
        return {"top1": None, "top5": None, "num_images": len(labels)}
    if predictions.read_by != "knn":
        return score(Predictions(logits, labels), teacher_logits)
    result = _accuracy(logits, labels)
    return result if teacher_logits is None else result | {"agreement": _agreement(logits, teacher_logits)}


def _accuracy(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    values, best = logits.topk(min(5, logits.shape[1]), dim=1)
    hits = (best == labels[:, None]) & (values > -math.inf)  # a class without a vote is no guess
    has_labels = bool((labels != NO_LABEL).all())
    return {
        "top1": _percent(hits[:, 0]) if has_labels else None,
        "top5": _percent(hits.any(dim=1)) if has_labels else None,
        "num_images": len(labels),
    }


def _agreement(logits: Tensor, teacher_logits: Tensor) -> float:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices[:, 0]  # of equal logits the one that `_accuracy` takes
    return _percent(best == teacher_logits.argmax(dim=1))


def _distance(compared: Tensor) -> dict[str, Any]:
    """The last entries of `summarize`, from the result (N, 3) of `features.compare`."""
    cosine = compared[:, 0].mean().item()
    noise, signal = compared[:, 1].sum().item(), compared[:, 2].sum().item()
    ratio = decibels(signal, noise)
    return {
        "cosine": round(cosine, 6),
        "relative_error": round(math.sqrt(noise / signal), 6) if signal else None,
        "features_sqnr_db": None if ratio is None else round(ratio, 4),
    }


def _percent(flags: Tensor) -> float:
    """Percentage of true flags, from an integer count."""
    return 100 * int(flags.sum()) / len(flags)
