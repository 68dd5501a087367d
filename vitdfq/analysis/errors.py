"""How far a student's outputs are from its teacher's: scores of an analysis, unrounded, so that small errors have an order."""

from torch import Tensor
from torch.nn import functional as F

from vitdfq.training.output_distance import decibels

Scores = dict[str, float | None]


def output_scores(outputs: Tensor, target: Tensor, gives: str) -> Scores:
    """Compare outputs with the teacher's on the same images.

    Args:
        outputs, target: (N, ...) of student and teacher.
        gives: "classes" or "features".

    Returns:
        sqnr_db: see `sqnr_db`.
        kl: divergence from the teacher's to the student's class probabilities, mean over images, in nats; None for features.
        agreement: percent of images with the same most probable class; None for features.
    """
    if gives == "features":
        return {"sqnr_db": sqnr_db(outputs, target), "kl": None, "agreement": None}
    same = (outputs.argmax(1) == target.argmax(1)).double().mean().item()
    # In float32 a small divergence is nothing but rounding.
    mine, wanted = (values.double().log_softmax(1) for values in (outputs, target))
    kl = max(F.kl_div(mine, wanted, log_target=True, reduction="batchmean").item(), 0.0)
    return {"sqnr_db": sqnr_db(outputs, target), "kl": kl, "agreement": 100 * same}


def sqnr_db(values: Tensor, target: Tensor) -> float | None:
    """Return 10 log10(|target|² / |values - target|²); None if the two are equal or the target is zero."""
    return decibels(target.double().square().sum().item(), (values.double() - target.double()).square().sum().item())


def error_of(scores: Scores) -> float:
    """The number that ranks sites and that an allocation of bits makes small: KL; for features the relative squared error."""
    if scores["kl"] is not None:
        return scores["kl"]
    return 0.0 if scores["sqnr_db"] is None else 10 ** (-scores["sqnr_db"] / 10)
