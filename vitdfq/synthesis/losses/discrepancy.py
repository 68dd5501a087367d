"""Teacher and student disagree: PSAQ-ViT V2's adversarial loss."""

from torch import Tensor

from vitdfq.synthesis.objective.context import SynthContext


def discrepancy(ctx: SynthContext) -> Tensor:
    """Return -mean_c |z_c - s_c| of the outputs of teacher z and fake-quantized student s; without a lower bound. (B,)

    The outputs are logits, or the embedding or pooled features of a teacher that gives features.

    PSAQ-ViT V2-style (arXiv 2209.05687): the paper's equations were not available to us; this is our reading of the abstract,
    of low confidence. In the paper the student learns in turn. Here, with engine "images", the student's ranges follow the
    images and its weights are constant.
    """
    [student] = ctx.passes["discrepancy"]
    return -(ctx.outputs - student.outputs).abs().mean(-1)
