"""The accuracy gate of a run: a student that lost its teacher's function ends the run with exit code 5."""

from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.common.errors import GateError
from vitdfq.reports.sqnr import BATCH_SIZE


def check_student(student: nn.Module, prepared: nn.Module, images: Tensor, min_agreement: float | None = None) -> None:
    """Compare a calibrated student with the float model on its synthetic images (N, 3, H, W), before it is saved.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from.
        images: (N, 3, H, W), N > 0.
        min_agreement: percent of the images on which both must predict the same class; None: a tenth of the way from chance to
            all images.

    Raises:
        GateError: logits that are not finite, or too little agreement.
    """
    logits, target = (
        forward_in_batches(model, images.cpu(), device_of(student), BATCH_SIZE) for model in (student, prepared)
    )  # each (N, C)
    if not logits.isfinite().all():
        raise GateError("the student's logits on the synthetic images are not finite: its calibration failed")
    chance = 100 / logits.shape[1]
    required = chance + (100 - chance) / 10 if min_agreement is None else min_agreement
    agreement = 100 * (logits.argmax(1) == target.argmax(1)).float().mean().item()
    if agreement < required:
        raise GateError(
            f"the student agrees with its teacher on {agreement:.1f} % of the synthetic images, fewer than min_agreement "
            f"({required:.1f}): try more bits or other calibrate.steps, or set min_agreement: 0 to keep it all the same"
        )
