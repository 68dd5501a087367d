"""The heads of an attention have the same structure: MimiQ's inter-head coherence."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts

C1, C2 = 0.01**2, 0.03**2  # of SSIM, for values in [0, 1]


def attention_scores(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the scores before the softmax of all sites."""
    return [f"{site.name}.qk" for site in facts.sites]


def head_similarity(ctx: SynthContext) -> Tensor:
    """Return 1 - SSIM² of the scores of two heads, mean over pairs of heads, queries, windows and layers.

    From MimiQ (arXiv 2407.20021), after the published code of its successor MaskAQ (arXiv 2606.04373). Scores are before the
    softmax, without Swin's position bias and without prefix tokens; each query's row is scaled to [0, 1]. SSIM is that of the
    whole row, without local windows. Its square treats opposite structure as equal structure. The published mean includes each
    head with itself; this one does not, which makes it H/(H-1) times as large.

    Returns:
        (B,)

    Raises:
        ValueError: every attention of the model has a single head.
    """
    layers: list[Tensor] = []
    for site in ctx.sites:
        if site.num_heads < 2:
            continue
        skip = site.num_prefix_tokens
        scores = ctx.recorded[f"{site.name}.qk"][:, :, skip:, skip:]  # (B·windows, H, n, n)
        apart = 1 - ssim(unit_range(scores.transpose(1, 2))).square()  # (B·windows, n, H, H), 0 on the diagonal
        pairs = site.num_heads * (site.num_heads - 1)
        layers.append((apart.sum((-2, -1)) / pairs).view(len(ctx.images), -1).mean(1))
    if not layers:
        raise ValueError("head_similarity compares the heads of an attention; this model has one head everywhere")
    return torch.stack(layers).mean(0)


def unit_range(rows: Tensor) -> Tensor:
    """Shift and scale each row of (..., n) to the range 0 to 1; a constant row becomes 0."""
    rows = rows - rows.amin(-1, keepdim=True)
    return rows / (rows.amax(-1, keepdim=True) + 1e-6)


def ssim(rows: Tensor) -> Tensor:
    """Return the structural similarity of all pairs of rows, without local windows: (..., H, n) -> (..., H, H)."""
    mean = rows.mean(-1, keepdim=True)  # (..., H, 1)
    covariance = (rows - mean) @ (rows - mean).mT / rows.shape[-1]  # (..., H, H)
    power, variance = mean.square(), covariance.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    luminance = (2 * mean @ mean.mT + C1) / (power + power.mT + C1)
    return luminance * (2 * covariance + C2) / (variance + variance.mT + C2)
