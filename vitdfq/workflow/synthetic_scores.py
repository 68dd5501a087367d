"""How near a student is to its teacher on synthetic images that its calibration never saw: a check that needs no data.

A student that was fitted to unlike images is exact on these and wrong on all others. Its error on its own images shows nothing of
this; procedural images of other random numbers do.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.evaluation import NO_LABEL, Predictions, feature_distance, score
from vitdfq.models import gives
from vitdfq.reports.sqnr import BATCH_SIZE
from vitdfq.synthesis import procedural_kinds

logger = logging.getLogger(__name__)

NUM_IMAGES = 32  # of each kind
SEED_OFFSET = 2_000_003  # so that the images differ from those of calibration and of its held-out validation
CALIBRATION, NATURAL = "calibration", "dead_leaves"  # NATURAL: the kind with the statistics of photographs
SCORES = ("num_images", "agreement", "kl", "logits_sqnr_db")
LARGEST_GAP_DB = 10.0


def unseen_images(teacher: nn.Module, seed: int) -> dict[str, Tensor]:
    """Procedural images of each kind, (NUM_IMAGES, 3, H, W), other than those of a run with this seed."""
    return procedural_kinds(teacher, NUM_IMAGES, seed + SEED_OFFSET)


def synthetic_scores(student: nn.Module, prepared: nn.Module, images: Tensor, unseen: dict[str, Tensor]) -> dict[str, Any]:
    """Agreement, KL and SQNR of a student with its teacher by kind of image, or the distance of features; see `summarize`.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from.
        images: (N, 3, H, W), those of its calibration; the first 32 are used.
        unseen: what `unseen_images` returned.
    """
    scores = {}
    for kind, batch in ({CALIBRATION: images[:NUM_IMAGES]} | unseen).items():
        pair = (student, prepared)
        outputs, target = (forward_in_batches(model, batch.cpu(), device_of(student), BATCH_SIZE) for model in pair)
        if gives(student) == "features":
            scores[kind] = feature_distance(outputs, target)
            continue
        all_scores = score(Predictions(outputs, torch.full((len(batch),), NO_LABEL)), target)
        scores[kind] = {key: all_scores[key] for key in SCORES}
    return scores


def warn_of_gap(scores: dict[str, Any]) -> None:
    """Log a warning for a student that is far better on the images of its calibration than on others."""
    key = "features_sqnr_db" if "features_sqnr_db" in scores[CALIBRATION] else "logits_sqnr_db"
    seen, unseen = (scores[kind][key] for kind in (CALIBRATION, NATURAL))
    if seen is not None and unseen is not None and seen - unseen > LARGEST_GAP_DB:
        logger.warning(
            f"the student is close to its teacher on its own calibration images ({seen:.1f} dB) and not on other images "
            f"({unseen:.1f} dB on {NATURAL}): expect as little on yours; try other images, such as synthesize.method: vitdfq"
        )
