"""Tokens shall differ from each other: the channels of what LayerNorms read, over a batch, as wide as a unit normal."""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.channel_moments import FORMS, moments, standard
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def token_norms(facts: TeacherFacts) -> list[str]:
    """Inputs of LayerNorms, without those inside attention and the first quarter, where junk and photographs are alike.

    Raises:
        ValueError: the model has no LayerNorm.
    """
    inside = tuple(f"{site.name}." for site in facts.sites)
    names = [name for name, norm in facts.norms.items() if isinstance(norm, nn.LayerNorm) and not name.startswith(inside)]
    if not names:
        raise ValueError("norm_statistics needs a model with LayerNorm; batch_norm_statistics is for models with BatchNorm")
    return [f"{name}:input" for name in names[len(names) // 4 :]]


def norm_statistics(ctx: SynthContext, *, form: str = "kl", hinge: float = 0.25) -> Tensor:
    """How far the channels of tokens normalised one by one are from N(0, 1) over batch and patches: relu(distance - hinge).

    Mean over norms. GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; this is our reading of
    the abstract. It matches BatchNorm's statistics; LayerNorm stores none, it only fixes each token's own mean and deviation.
    N(0, 1) for each channel is our stand-in: false in detail, but batches of which all tokens are alike are far from it. Use
    it with batches of 16 images or more. Every image of the batch carries the value of the whole, so that a weight means what
    it does for other losses.

    Args:
        form: "kl", "mse" or "l2", see `synthesis/moments.py`.
        hinge: photographs are about this far away as well.

    Returns:
        (B,)
    """
    prefix, distance = ctx.sites[0].num_prefix_tokens if ctx.sites else 0, lookup(form, FORMS, "form")
    values = []
    for name in token_norms(ctx.facts):
        tokens = ctx.recorded[name]  # (B, N, D), (B, h, w, D), or (B, D) where pooled
        tokens = tokens[:, prefix:] if tokens.ndim == 3 else tokens
        if tokens.ndim < 3 or tokens.shape[1] < 2:
            continue  # pooled: one token an image has no spread within the image
        found = moments(layer_norm(tokens, tokens.shape[-1:]), channel=-1)
        values.append((distance(found, standard(found)) - hinge).relu())
    return torch.stack(values).mean().expand(len(ctx.images))
