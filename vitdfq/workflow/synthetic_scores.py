"""How near a student is to its teacher on synthetic images that its calibration never saw, and what that lets one expect.

A student that was fitted to unlike images is exact on these and wrong on all others. Its error on its own images shows nothing of
this; procedural images of other random numbers do.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.evaluation import NO_LABEL, Predictions, expectation, feature_distance, score
from vitdfq.reports.sqnr import BATCH_SIZE
from vitdfq.synthesis import procedural_kinds

logger = logging.getLogger(__name__)

NUM_IMAGES = 32  # of each kind
SEED_OFFSET = 2_000_003  # so that the images differ from those of calibration and of its held-out validation
CALIBRATION, NATURAL = "calibration", "dead_leaves"  # NATURAL: the kind with the statistics of photographs
SCORES = ("num_images", "agreement", "kl", "logits_sqnr_db")
LARGEST_GAP_DB = 10.0

Outputs = dict[str, tuple[Tensor, Tensor]]  # kind of image -> what student and teacher give on it, (N, ...) each


def unseen_images(teacher: nn.Module, seed: int) -> dict[str, Tensor]:
    """Procedural images of each kind, (NUM_IMAGES, 3, H, W), other than those of a run with this seed."""
    return procedural_kinds(teacher, NUM_IMAGES, seed + SEED_OFFSET)


def outputs_by_kind(student: nn.Module, prepared: nn.Module, images: Tensor, unseen: dict[str, Tensor]) -> Outputs:
    """What a student and its teacher give on synthetic images, by kind of image.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from.
        images: (N, 3, H, W), those of its calibration; the first 32 are used.
        unseen: what `unseen_images` returned.
    """
    batches = {CALIBRATION: images[:NUM_IMAGES]} | unseen
    device = device_of(student)

    def run(model: nn.Module, batch: Tensor) -> Tensor:
        return forward_in_batches(model, batch.cpu(), device, BATCH_SIZE)

    return {kind: (run(student, batch), run(prepared, batch)) for kind, batch in batches.items()}


def synthetic_scores(outputs: Outputs, gives: str) -> dict[str, Any]:
    """Agreement, KL and SQNR of a student with its teacher by kind of image, or the distance of features; see `summarize`.

    Args:
        outputs: what `outputs_by_kind` returned.
        gives: "classes" or "features".
    """
    scores = {}
    for kind, (of_student, target) in outputs.items():
        if gives == "features":
            scores[kind] = feature_distance(of_student, target)
            continue
        all_scores = score(Predictions(of_student, torch.full((len(target),), NO_LABEL)), target)
        scores[kind] = {key: all_scores[key] for key in SCORES}
    return scores


def expected_on_real_images(outputs: Outputs, gives: str) -> dict[str, Any] | None:
    """Expected agreement and loss of top-1, see `expectation`; None for features, which are no classes."""
    return None if gives == "features" else expectation(pair for kind, pair in outputs.items() if kind != CALIBRATION)


def warn_of_gap(scores: dict[str, Any]) -> None:
    """Log a warning for a student that is far better on the images of its calibration than on others."""
    key = "features_sqnr_db" if "features_sqnr_db" in scores[CALIBRATION] else "logits_sqnr_db"
    seen, unseen = (scores[kind][key] for kind in (CALIBRATION, NATURAL))
    if seen is not None and unseen is not None and seen - unseen > LARGEST_GAP_DB:
        logger.warning(
            f"the student is close to its teacher on its own calibration images ({seen:.1f} dB) and not on other images "
            f"({unseen:.1f} dB on {NATURAL}): expect as little on yours; try other images, such as synthesize.method: vitdfq"
        )
