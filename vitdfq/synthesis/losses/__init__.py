"""The synthesis losses: one pure function of the context a file, one value an image.

To add one, write `my_loss.py` beside these files and list it here; `tests/synthesis/test_loss_contracts.py` enrols it
by itself.
"""

from vitdfq.synthesis.context import Loss
from vitdfq.synthesis.losses.attention_centre import attention_centre, draw_centre, last_block
from vitdfq.synthesis.losses.attention_prior import attention_prior, deep_attention, draw_priors
from vitdfq.synthesis.losses.class_confidence import class_confidence
from vitdfq.synthesis.losses.label_correlation import label_correlation
from vitdfq.synthesis.losses.mode_consistency import consistent_blocks, mode_consistency, stochastic_passes
from vitdfq.synthesis.losses.pair_distance import pair_distance
from vitdfq.synthesis.losses.patch_similarity import attention_outputs, patch_similarity
from vitdfq.synthesis.losses.perturbation_robustness import perturbation_robustness, perturbed_passes
from vitdfq.synthesis.losses.total_variation import draw_target, total_variation

LOSSES: dict[str, Loss] = {
    "attention_centre": Loss(attention_centre, listens=last_block, draw=draw_centre),
    "attention_prior": Loss(attention_prior, listens=deep_attention, draw=draw_priors),
    "class_confidence": Loss(class_confidence),
    "label_correlation": Loss(label_correlation, compares=True),
    "mode_consistency": Loss(mode_consistency, listens=consistent_blocks, passes=stochastic_passes),
    "pair_distance": Loss(pair_distance, listens=last_block, compares=True),
    "patch_similarity": Loss(patch_similarity, listens=attention_outputs),
    "perturbation_robustness": Loss(perturbation_robustness, passes=perturbed_passes, compares=True),
    "total_variation": Loss(total_variation, draw=draw_target),
}
