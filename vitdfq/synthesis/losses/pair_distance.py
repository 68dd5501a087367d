"""Two images with the same targets are not alike to the teacher (ACQ-style)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.context import SynthContext
from vitdfq.synthesis.objective.saliency import saliency


def pair_distance(
    ctx: SynthContext, *, form: str = "hinge", of: str = "saliency", margin: float = 0.5, epsilon: float = 0.01
) -> Tensor:
    """Return the similarity of images 2i and 2i + 1; 0 where the batch has only one of them.

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    adversarial loss of paired samples under one condition.

    Args:
        ctx: recorded saliency of the last block.
        form: "hinge": relu(cosine - (1 - margin)). "ratio": 1 / (d / d_code + epsilon), for images that a generator makes of
            codes: mean absolute distance of the images relative to that of their codes, which is 1 without codes.
        of: what is compared, "saliency" of the last block or "features".
        margin: of the hinge; a cosine below 1 - margin costs nothing.
        epsilon: of the ratio, bounds it by 1 / epsilon.

    Returns:
        (B,)
    """
    measure = lookup(form, {"hinge": hinge, "ratio": ratio}, "form of pair_distance")
    values = lookup(of, {"saliency": last_saliency, "features": features}, "`of` of pair_distance")(ctx)
    partner, has_partner = partners(ctx)
    if measure is hinge:
        similarity = hinge(values, values[partner], margin)
    else:
        code_distance = values.new_ones(len(values))
        if ctx.codes is not None:
            code_distance = (ctx.codes - ctx.codes[partner]).abs().mean(1).clamp(min=epsilon)
        similarity = ratio((values - values[partner]).abs().mean(1), code_distance, epsilon)
    return similarity * has_partner


def last_saliency(ctx: SynthContext) -> Tensor:
    """Return the last block's saliency (B, n), scaled to mean 1, so that distances do not shrink with the number of patches."""
    maps = saliency(ctx, ctx.sites[-1], ctx.kept_tokens).flatten(1)
    return maps * maps.shape[1]


def features(ctx: SynthContext) -> Tensor:
    """Return the input of the head, (B, D)."""
    return ctx.features


def partners(ctx: SynthContext) -> tuple[Tensor, Tensor]:
    """Return the row of each view's partner, (B,), its own if it has none, and whether it has one, (B,).

    The partner is the view of the same place in the other image of the pair.
    """
    row_of = {view: row for row, view in enumerate(zip(ctx.indices, ctx.places, strict=True))}
    rows = [row_of.get((index ^ 1, place)) for index, place in row_of]
    has_partner = torch.tensor([row is not None for row in rows], device=ctx.images.device)
    partner = [view if row is None else row for view, row in enumerate(rows)]
    return torch.tensor(partner, device=ctx.images.device), has_partner


def hinge(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Return relu(cosine - (1 - margin)) of the rows of (B, D) and (B, D). (B,)"""
    return (cosine_similarity(one, other) - (1 - margin)).relu()


def ratio(distance: Tensor, code_distance: Tensor, epsilon: float) -> Tensor:
    """Return 1 / (distance / code_distance + epsilon) of (B,) and (B,): mode seeking (arXiv 1903.05628). (B,)"""
    return 1 / (distance / code_distance + epsilon)
