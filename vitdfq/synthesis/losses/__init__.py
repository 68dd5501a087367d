"""The synthesis losses: one pure function of the context a file, one value an image.

To add one, write `my_loss.py` beside these files and list it here; `tests/synthesis/test_loss_contracts.py` enrols it
by itself.
"""

from vitdfq.synthesis.context import Loss
from vitdfq.synthesis.losses.attention_prior import attention_prior, deep_attention, draw_priors
from vitdfq.synthesis.losses.class_confidence import class_confidence
from vitdfq.synthesis.losses.patch_similarity import attention_outputs, patch_similarity
from vitdfq.synthesis.losses.total_variation import draw_target, total_variation

LOSSES: dict[str, Loss] = {
    "attention_prior": Loss(attention_prior, listens=deep_attention, draw=draw_priors),
    "class_confidence": Loss(class_confidence),
    "patch_similarity": Loss(patch_similarity, listens=attention_outputs),
    "total_variation": Loss(total_variation, draw=draw_target),
}
