"""Checks that end a run with exit code 5: a student that fell apart."""

import torch
from torch import Tensor, nn

from vitdfq.common.errors import GateError

AT_ONCE = 32  # images in one forward pass


@torch.inference_mode()
def check_alive(student: nn.Module, prepared: nn.Module, images: Tensor, min_agreement: float | None = None) -> None:
    """Look at a calibrated student on its own synthetic images (N, 3, H, W), before anything is made of it.

    Args:
        min_agreement: percent of the images on which the two must agree; None: a tenth of the way from chance to all of them.

    Raises:
        GateError: logits that are not finite, or too little agreement.
    """
    device = next(student.parameters()).device
    logits, target = (torch.cat([model(part.to(device)) for part in images.split(AT_ONCE)]) for model in (student, prepared))
    if not logits.isfinite().all():
        raise GateError("the student's logits on the synthetic images are not finite: its calibration failed")
    chance = 100 / logits.shape[1]
    least = chance + (100 - chance) / 10 if min_agreement is None else min_agreement
    agreement = 100 * (logits.argmax(1) == target.argmax(1)).float().mean().item()
    if agreement < least:
        raise GateError(
            f"the student agrees with its teacher on {agreement:.1f} % of the synthetic images, fewer than min_agreement "
            f"({least:.1f}): try more bits or other calibrate.steps, or set min_agreement: 0 to keep it all the same"
        )
