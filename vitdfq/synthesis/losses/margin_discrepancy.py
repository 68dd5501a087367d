"""Teacher and student shall disagree at least by a random margin: AGM-style."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.context import SynthContext


def total_variation_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Half the L1 distance of the probabilities, in [0, 1]; has a slope wherever they differ."""
    return (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1) / 2


def logit_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean absolute difference of the logits; its scale is the model's."""
    return (teacher - student).abs().mean(-1)


def jensen_shannon(teacher: Tensor, student: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the probabilities, in [0, ln 2]; flat where they are equal."""
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    middle = torch.logaddexp(p, q) - torch.tensor(2.0).log()
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tv": total_variation_distance,
    "l1": logit_distance,
    "js": jensen_shannon,
}


def margin_discrepancy(
    ctx: SynthContext,
    *,
    distance: str = "tv",
    margin: str = "relative",
    kappa: float = 1.5,
    mean: float = 0.3,
    deviation: float = 0.1,
    cap: float = 0.9,
) -> Tensor:
    """relu(m - D): the distance D of teacher and fake-quantized student is pushed up where it is below a margin m.

    m ~ N(μ, σ²), fresh for each view and step, held within 0 and `cap`. AGM-style (10.1109/TCSVT.2024.3399311): the paper's
    equations were not available to us; this is our reading of the abstract. Beside pixels the student learns nothing, so
    this asks for images that are hard to quantize; a game of two it is where a student learns in turn with a generator.

    Args:
        distance: "tv" and "js" of the probabilities, or "l1" of the logits (for which `cap` may be too low).
        margin: "relative": μ is `kappa` times the batch's mean D at this step, without gradient, and σ = μ/3 (in place of a
            running mean, so that nothing is remembered between steps); "fixed": μ and σ are `mean` and `deviation`.

    Returns:
        (B,)
    """
    [student] = ctx.passes["margin_discrepancy"]
    found = lookup(distance, DISTANCES, "distance")(ctx.logits, student.logits)  # (B,)
    centers = {"relative": (kappa * found.detach().mean(), kappa * found.detach().mean() / 3), "fixed": (mean, deviation)}
    center, spread = lookup(margin, centers, "margin")
    noise = torch.stack([torch.randn((), generator=rng) for rng in ctx.generators("margin_discrepancy")]).to(found)
    return ((center + spread * noise).clamp(0, cap) - found).relu()
