"""Two images asked for the same shall not look the same to the teacher (ACQ-style)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.context import SynthContext
from vitdfq.synthesis.objective.saliency import saliency


def pair_distance(
    ctx: SynthContext, *, form: str = "hinge", of: str = "saliency", margin: float = 0.5, epsilon: float = 0.01
) -> Tensor:
    """How alike images 2i and 2i + 1 are, 0 where the batch holds one of them only.

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    adversarial loss of paired samples under one condition.

    Args:
        form: "hinge", or "ratio" for images that a generator makes of codes: what matters is how far two images are apart for
            codes so far apart; without codes their distance counts as 1.
        of: what is compared, "saliency" of the last block or "features".
        margin: of the hinge; a cosine below 1 - margin costs nothing.
        epsilon: of the ratio, bounds it by 1 / epsilon.

    Returns:
        (B,)
    """
    measure = lookup(form, {"hinge": hinge, "ratio": ratio}, "form of pair_distance")
    shown = lookup(of, {"saliency": last_saliency, "features": lambda ctx: ctx.features}, "`of` of pair_distance")(ctx)
    partner, found = partners(ctx)
    if measure is hinge:
        alike = hinge(shown, shown[partner], margin)
    else:
        apart = (
            shown.new_ones(len(shown)) if ctx.codes is None else (ctx.codes - ctx.codes[partner]).abs().mean(1).clamp(min=epsilon)
        )
        alike = ratio((shown - shown[partner]).abs().mean(1), apart, epsilon)
    return alike * found


def last_saliency(ctx: SynthContext) -> Tensor:
    """(B, n), scaled to a mean of 1, so that distances do not shrink with the number of patches."""
    found = saliency(ctx, ctx.sites[-1], ctx.kept).flatten(1)
    return found * found.shape[1]


def partners(ctx: SynthContext) -> tuple[Tensor, Tensor]:
    """Return (which view shows the same place of the other image of the pair, (B,); whether there is one, (B,))."""
    at = {view: row for row, view in enumerate(zip(ctx.indices, ctx.places, strict=True))}
    rows = [at.get((index ^ 1, place)) for index, place in at]
    found = torch.tensor([row is not None for row in rows], device=ctx.images.device)
    return torch.tensor([own if row is None else row for own, row in enumerate(rows)], device=ctx.images.device), found


def hinge(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """(B, D) twice -> (B,): by how much the cosine exceeds 1 - margin."""
    return (cosine_similarity(one, other) - (1 - margin)).relu()


def ratio(distance: Tensor, code_distance: Tensor, epsilon: float) -> Tensor:
    """Mode seeking (arXiv 1903.05628): 1 / (distance of images / distance of codes + epsilon); (B,) twice -> (B,)."""
    return 1 / (distance / code_distance + epsilon)
