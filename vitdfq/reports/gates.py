"""The accuracy gate of a run: a student that lost its teacher's function ends the run with exit code 5."""

from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.common.errors import GateError, RecipeError
from vitdfq.evaluation.features import compare, tokens_of
from vitdfq.models import gives, output_name
from vitdfq.reports.sqnr import BATCH_SIZE

SHARE = 10  # a student must be a tenth of the way from chance to its teacher


def check_thresholds(teacher: nn.Module, min_agreement: float | None, min_cosine: float | None) -> None:
    """Refuse the threshold of the other kind of outputs, which would be no gate at all.

    Raises:
        RecipeError: with the key that is meant.
    """
    if gives(teacher) == "classes" and min_cosine is not None:
        raise RecipeError("min_cosine: this model gives classes, whose gate is min_agreement")
    if gives(teacher) == "features" and min_agreement is not None:
        raise RecipeError("min_agreement: this model gives features, whose gate is min_cosine (0 to 1)")


def check_student(
    student: nn.Module,
    prepared: nn.Module,
    images: Tensor,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
) -> None:
    """Compare a calibrated student with the float model on its synthetic images (N, 3, H, W), before it is saved.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from.
        images: (N, 3, H, W), N > 0.
        min_agreement: of classes: percent of the images on which both must predict the same one; None: a tenth of the way from
            chance to all images.
        min_cosine: of features: mean cosine of the student's to the teacher's; None: a tenth of the way from chance to 1.

    Raises:
        GateError: outputs that are not finite, or too little agreement.
    """
    outputs, target = (forward_in_batches(model, images.cpu(), device_of(student), BATCH_SIZE) for model in (student, prepared))
    if not outputs.isfinite().all():
        raise GateError(f"the student's {output_name(student)} on the synthetic images are not finite: its calibration failed")
    if gives(student) == "classes":
        _check_agreement(outputs, target, min_agreement)
    else:
        _check_cosine(tokens_of(student, outputs), tokens_of(prepared, target), min_cosine)


def _check_agreement(logits: Tensor, target: Tensor, least: float | None) -> None:
    """Compare the classes of logits (N, C)."""
    chance = 100 / logits.shape[1]
    required = chance + (100 - chance) / SHARE if least is None else least
    agreement = 100 * (logits.argmax(1) == target.argmax(1)).float().mean().item()
    if agreement < required:
        raise GateError(
            f"the student agrees with its teacher on {agreement:.1f} % of the synthetic images, fewer than min_agreement "
            f"({required:.1f}): try more bits or other calibrate.steps, or set min_agreement: 0 to keep it all the same"
        )


def _check_cosine(tokens: Tensor, target: Tensor, least: float | None) -> None:
    """Compare features (N, T, D). Chance is the cosine of the teacher's features of one image to those of the next."""
    chance = compare(target, target.roll(1, dims=0))[:, 0].mean().item() if len(target) > 1 else 0.0
    required = chance + (1 - chance) / SHARE if least is None else least
    cosine = compare(tokens, target)[:, 0].mean().item()
    if cosine < required:
        raise GateError(
            f"the student's features have a cosine of {cosine:.6f} to its teacher's on the synthetic images, less than "
            f"min_cosine ({required:.6f}): try more bits or other calibrate.steps, or set min_cosine: 0 to keep it all the same"
        )
