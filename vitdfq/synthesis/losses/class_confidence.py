"""The teacher predicts the target classes."""

from torch import Tensor

from vitdfq.synthesis.objective.context import SynthContext


def class_confidence(ctx: SynthContext) -> Tensor:
    """Return the cross-entropy -Σ_c t_c · log softmax(z)_c of the teacher's logits z to the targets t. (B,)

    PSAQ-ViT (arXiv 2203.02250) has it with one-hot targets, SARDFQ (arXiv 2412.16553) with soft ones.
    """
    return -(ctx.targets * ctx.logits.log_softmax(-1)).sum(-1)
