"""The synthesis losses: each file has one pure function of the context that returns one value per view.

To add a loss, write `my_loss.py` beside these files and list it in `LOSSES`; the contract tests of
`tests/synthesis/losses/test_loss_contracts.py` then include it.
"""

from vitdfq.synthesis.losses.attention_center import attention_center, draw_center, last_block
from vitdfq.synthesis.losses.attention_entropy import attention_entropy, draw_patches
from vitdfq.synthesis.losses.attention_prior import attention_prior, deep_attention, draw_priors
from vitdfq.synthesis.losses.batch_norm_statistics import batch_norm_inputs, batch_norm_statistics
from vitdfq.synthesis.losses.class_confidence import class_confidence
from vitdfq.synthesis.losses.discrepancy import discrepancy
from vitdfq.synthesis.losses.frequency_consistency import filtered_passes, frequency_consistency
from vitdfq.synthesis.losses.head_similarity import attention_scores, head_similarity
from vitdfq.synthesis.losses.input_statistics import input_statistics
from vitdfq.synthesis.losses.label_correlation import label_correlation
from vitdfq.synthesis.losses.margin_discrepancy import margin_discrepancy
from vitdfq.synthesis.losses.mode_consistency import consistent_blocks, has_batch_norms, mode_consistency, stochastic_passes
from vitdfq.synthesis.losses.norm_statistics import norm_statistics, token_norms
from vitdfq.synthesis.losses.pair_distance import pair_distance
from vitdfq.synthesis.losses.patch_similarity import attention_outputs, patch_similarity
from vitdfq.synthesis.losses.perturbation_robustness import perturbation_robustness, perturbed_passes
from vitdfq.synthesis.losses.smoothness import smoothness
from vitdfq.synthesis.losses.statistics_prior import norm_inputs, statistics_prior
from vitdfq.synthesis.losses.total_variation import draw_target, total_variation
from vitdfq.synthesis.objective.context import Loss, always
from vitdfq.synthesis.objective.networks import student_pass

LOSSES: dict[str, Loss] = {
    "attention_center": Loss(
        attention_center, listens=last_block, draw=draw_center, condition="center", stream="attention_centre"
    ),
    "attention_entropy": Loss(attention_entropy, listens=attention_scores, draw=draw_patches),
    "attention_prior": Loss(attention_prior, listens=deep_attention, draw=draw_priors),
    "batch_norm_statistics": Loss(batch_norm_statistics, listens=batch_norm_inputs, compares=always),
    "class_confidence": Loss(class_confidence, needs_classes=True),
    "discrepancy": Loss(discrepancy, passes=student_pass, compares=always),  # the batch determines the student's ranges
    "frequency_consistency": Loss(frequency_consistency, passes=filtered_passes, needs_classes=True),
    "head_similarity": Loss(head_similarity, listens=attention_scores),
    "input_statistics": Loss(input_statistics, compares=always),
    "label_correlation": Loss(label_correlation, compares=always, needs_classes=True),
    "margin_discrepancy": Loss(margin_discrepancy, passes=student_pass, compares=always, needs_classes=True),
    "mode_consistency": Loss(mode_consistency, listens=consistent_blocks, passes=stochastic_passes, compares=has_batch_norms),
    "norm_statistics": Loss(norm_statistics, listens=token_norms, compares=always),
    "pair_distance": Loss(pair_distance, listens=last_block, compares=always),
    "patch_similarity": Loss(patch_similarity, listens=attention_outputs),
    "perturbation_robustness": Loss(
        perturbation_robustness, passes=perturbed_passes, compares=always, needs_classes=True
    ),  # alone, without a loss of classes that separates images, it makes them alike
    "smoothness": Loss(smoothness),
    "statistics_prior": Loss(statistics_prior, listens=norm_inputs, compares=always),
    "total_variation": Loss(total_variation, draw=draw_target),
}
