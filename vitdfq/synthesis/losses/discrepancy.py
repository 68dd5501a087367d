"""Images on which teacher and student disagree: PSAQ-ViT V2's adversarial term."""

from torch import Tensor

from vitdfq.synthesis.objective.context import SynthContext


def discrepancy(ctx: SynthContext) -> Tensor:
    """Minus the mean absolute difference of the logits of teacher and fake-quantized student; has no lower bound.

    PSAQ V2-style (arXiv 2209.05687): the paper's equations were not available to us; this is our reading of the abstract,
    of low confidence. There the student learns in turn; here its ranges follow the images and its weights stay. Returns
    (B,).
    """
    [student] = ctx.passes["discrepancy"]
    return -(ctx.logits - student.logits).abs().mean(-1)
