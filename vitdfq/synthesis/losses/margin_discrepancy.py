"""Teacher and student disagree at least by a random margin: AGM-style."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.context import SynthContext


def total_variation_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Return half the L1 distance of the probabilities, (B,), in [0, 1]; its gradient is not 0 wherever they differ."""
    return (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1) / 2


def logit_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean absolute difference of the logits, (B,), in the units of the model's logits."""
    return (teacher - student).abs().mean(-1)


def jensen_shannon(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of the probabilities, (B,), in [0, ln 2]; quadratic where they are nearly equal."""
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
    """Return relu(m - D): the distance D of teacher and fake-quantized student grows where it is below a margin m.

    m ~ N(μ, σ²), drawn for each view and step, clamped to [0, `cap`]. AGM-style (10.1109/TCSVT.2024.3399311): the paper's
    equations were not available to us; this is our reading of the abstract. With engine "images" the student is constant, and
    the loss leads to images that are hard to quantize. It is adversarial where a student learns in turn with a generator.

    Args:
        ctx: with the student's pass.
        distance: D, "tv" or "js" of the probabilities, or "l1" of the logits (for which `cap` may be too low).
        margin: "relative": μ is `kappa` times the batch's mean D at this step, without gradient, and σ = μ/3. The batch's mean
            replaces a running mean, which would be state between steps. "fixed": μ and σ are `mean` and `deviation`.
        kappa: factor of the relative margin.
        mean: of the fixed margin.
        deviation: of the fixed margin.
        cap: largest margin.

    Returns:
        (B,)
    """
    [student] = ctx.passes["margin_discrepancy"]
    values = lookup(distance, DISTANCES, "distance")(ctx.logits, student.logits)  # (B,)
    relative = kappa * values.detach().mean()
    center, spread = lookup(margin, {"relative": (relative, relative / 3), "fixed": (mean, deviation)}, "margin")
    noise = torch.stack([torch.randn((), generator=rng) for rng in ctx.generators("margin_discrepancy")]).to(values)
    return ((center + spread * noise).clamp(0, cap) - values).relu()
