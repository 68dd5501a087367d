"""Tokens differ from each other: over a batch, the channels of LayerNorm inputs have the moments of N(0, 1)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.channel_moments import FORMS, moments, standard
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def token_norms(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: LayerNorm inputs outside attention, without the first quarter, where noise resembles photographs.

    Raises:
        ValueError: the model has no LayerNorm.
    """
    inside = tuple(f"{site.name}." for site in facts.sites)
    names = [name for name, norm in facts.norms.items() if isinstance(norm, nn.LayerNorm) and not name.startswith(inside)]
    if not names:
        raise ValueError("norm_statistics needs a model with LayerNorm; batch_norm_statistics is for models with BatchNorm")
    return [f"{name}:input" for name in names[len(names) // 4 :]]


def norm_statistics(ctx: SynthContext, *, form: str = "kl", hinge: float = 0.25) -> Tensor:
    """Return relu(D(M, N(0, 1)) - hinge), mean over norms, of the moments M of each channel of normalized tokens.

    The moments are those over batch and patches. Every image gets the value of the whole batch, so that a weight has the same
    scale as for other losses. Use the loss with batches of 16 images or more.

    GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; this is our reading of the abstract. The
    paper matches the statistics that BatchNorm stores. LayerNorm stores none; it fixes only the mean and standard deviation of
    each token. N(0, 1) for each channel is our substitute: inexact, but batches of similar tokens are far from it.

    Args:
        ctx: recorded inputs of `token_norms`.
        form: D, "kl", "mse" or "l2", see `channel_moments.FORMS`.
        hinge: distance without cost; about that of photographs.

    Returns:
        (B,)
    """
    prefix, distance = ctx.sites[0].num_prefix_tokens if ctx.sites else 0, lookup(form, FORMS, "form")
    values: list[Tensor] = []
    for name in token_norms(ctx.facts):
        tokens = ctx.recorded[name]  # (B, N, D), (B, h, w, D), or (B, D) where pooled
        tokens = tokens[:, prefix:] if tokens.ndim == 3 else tokens
        if tokens.ndim < 3 or tokens.shape[1] < 2:
            continue  # pooled: a single token per image has no variance within the image
        measured = moments(layer_norm(tokens, tokens.shape[-1:]), channel=-1)
        values.append((distance(measured, standard(measured)) - hinge).relu())
    return torch.stack(values).mean().expand(len(ctx.images))
