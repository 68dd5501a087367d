"""Synthesis for a teacher whose maps of attention are not known: losses that read them are left out, and said."""

import logging
from dataclasses import replace

from vitdfq.models import AttentionSite
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.weighted_losses import resolve_losses
from vitdfq.synthesis.presets import Method

logger = logging.getLogger(__name__)

ANY_SITE = AttentionSite("attention", depth=0, num_heads=1, grid=(1, 1), num_prefix_tokens=0, num_windows=1, class_row=False)


def without_attention(method: Method, facts: TeacherFacts) -> Method:
    """Return the method without the losses that listen to an attention, where the teacher has no attention over patches.

    Raises:
        ValueError: it has no other losses.
    """
    if facts.sites or not method.losses:
        return method
    probe = replace(facts, sites=[ANY_SITE])
    terms = resolve_losses(method.losses)
    left_out = {term.name for term in terms if any(name.startswith(f"{ANY_SITE.name}.") for name in term.loss.listens(probe))}
    if not left_out:
        return method
    names = ", ".join(sorted(left_out))
    if len(left_out) == len(terms):
        raise ValueError(f"{names}: these losses read attention over patches, which is not known of this teacher; add others")
    logger.info(f"synthesize: {names} left out: no attention over patches is known of this teacher")
    return replace(method, losses={name: spec for name, spec in method.losses.items() if name not in left_out})
