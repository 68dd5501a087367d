"""What models give on a set of images, on the CPU, and its form as tensors of an artifact."""

from dataclasses import dataclass

from torch import Tensor

from vitdfq.common.tensor_dicts import Tensors


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a data set: logits (N, C) float32 and the true labels (N,) int64, -1 without labels, on the CPU."""

    logits: Tensor
    labels: Tensor

    def tensors(self) -> Tensors:
        return {"logits": self.logits, "labels": self.labels}


@dataclass(frozen=True)
class FeaturePredictions:
    """The features that a model gives on a data set, and the classes that were read from them, on the CPU.

    Attributes:
        features: (N, D) float32, one vector an image: the output, or what `features.pooled` makes of tokens.
        labels: (N,) int64, -1 without labels.
        read_by: what read classes, one of `options.READERS`, or None: nothing did.
        logits: (N, C), what it read; of k-NN the logarithm of the votes' shares, -inf for no vote.
        comparison: (N, 3) float64 with the teacher's output, see `features.compare`; None: it was in another pass, and the
            output has one vector an image.
    """

    features: Tensor
    labels: Tensor
    read_by: str | None = None
    logits: Tensor | None = None
    comparison: Tensor | None = None

    def tensors(self) -> Tensors:
        optional = {"logits": self.logits, "comparison": self.comparison}
        return {"features": self.features, "labels": self.labels} | {
            name: value for name, value in optional.items() if value is not None
        }


AnyPredictions = Predictions | FeaturePredictions


def predictions_of(tensors: Tensors, read_by: str | None) -> AnyPredictions:
    """Return what `tensors()` was called on; other tensors beside those are left out."""
    if "features" not in tensors:
        return Predictions(tensors["logits"], tensors["labels"])
    return FeaturePredictions(tensors["features"], tensors["labels"], read_by, tensors.get("logits"), tensors.get("comparison"))
