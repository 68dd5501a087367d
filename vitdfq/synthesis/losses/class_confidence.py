"""The teacher shall see the classes that the targets ask for."""

from torch import Tensor

from vitdfq.synthesis.objective.context import SynthContext


def class_confidence(ctx: SynthContext) -> Tensor:
    """Cross-entropy of the teacher's prediction to the targets, soft or one-hot. Returns (B,)."""
    return -(ctx.targets * ctx.logits.log_softmax(-1)).sum(-1)
