"""The residual stream of ViTs: writers are centered, so that LayerNorm becomes RMSNorm, which commutes with any rotation.

QuaRot (arXiv 2404.00456), SpinQuant (2405.16406) and SliceGPT (2401.15024), for ViTs.
"""

from typing import Any

from timm.models.vision_transformer import Block
from torch import nn

from vitdfq.preparation.fold import fold_layer_scale
from vitdfq.preparation.hadamard import random_orthogonal
from vitdfq.preparation.linear import absorb_norm, has_affine, rotate_input, rotate_output

TOKENS = ("pos_embed", "cls_token", "dist_token", "reg_token")


def blocks(model: Any) -> list[Any]:
    return list(model.blocks)


def why_not(model: Any) -> str | None:
    """Return what stands in the way of every rotation."""
    if any(type(block) is not Block for block in model.blocks) or not isinstance(model.norm_pre, nn.Identity):
        return f"works on pre-norm ViTs (ViT, DeiT, DINOv2) and Swin only, not on this {type(model).__name__}"
    attentions = [block.attn for block in model.blocks]
    if any(attention.gate is not None or not isinstance(attention.norm, nn.Identity) for attention in attentions):
        return "works on ViTs without a gate or norm inside attention only"
    return None


def why_not_residual(model: Any) -> str | None:
    """Return what stands in the way of rotating the stream, though heads and MLPs may be rotated."""
    if model.global_pool not in ("token", "avg"):
        return f"works on heads that read one token or the mean only: {model.global_pool!r} pooling depends on the basis"
    if not isinstance(model.patch_embed.norm, nn.Identity):
        return "works on ViTs whose patch embedding has no norm only"
    norms = [norm for block in model.blocks for norm in (block.norm1, block.norm2)]
    if not all(has_affine(norm) for norm in (*norms, getattr(model, _last_norm(model)))):
        return "works where every norm is a LayerNorm with its affine only; is the stream rotated already?"
    return None


def rotate_residual(model: Any, seed: int) -> None:
    """Writers by A = Q (I - 11ᵀ/D), readers by Qᵀ, LayerNorm to RMSNorm; in place."""
    fold_layer_scale(model)  # the scale would stand between a writer and the stream
    width = model.patch_embed.proj.out_channels
    q = random_orthogonal(width, seed)
    writer = q - q.mean(1, keepdim=True)  # Q (I - 11ᵀ/D)
    rotate_output(model.patch_embed.proj, writer)
    for name in TOKENS:
        tokens = getattr(model, name, None)
        if tokens is not None:
            tokens.copy_(tokens.double() @ writer.T.to(tokens.device))
    for block in model.blocks:
        rotate_output(block.attn.proj, writer)
        rotate_output(block.mlp.fc2, writer)
        block.norm1 = absorb_norm(block.norm1, [block.attn.qkv], q, nn.RMSNorm)
        block.norm2 = absorb_norm(block.norm2, _first_linears(block.mlp), q, nn.RMSNorm)
    last = _last_norm(model)
    setattr(model, last, absorb_norm(getattr(model, last), _heads(model), q, nn.RMSNorm))


def unrotate_residual(model: Any, seed: int) -> None:
    """Writers and readers back in timm's basis, in place; the norms stay as they are."""
    q = random_orthogonal(model.patch_embed.proj.out_channels, seed)
    rotate_output(model.patch_embed.proj, q.T)
    for name in TOKENS:
        tokens = getattr(model, name, None)
        if tokens is not None:
            tokens.copy_(tokens.double() @ q.to(tokens.device))
    for block in model.blocks:
        rotate_output(block.attn.proj, q.T)
        rotate_output(block.mlp.fc2, q.T)
        for reader in (block.attn.qkv, *_first_linears(block.mlp)):
            rotate_input(reader, q.T)
    for head in _heads(model):
        rotate_input(head, q.T)


def _heads(model: Any) -> list[nn.Linear]:
    return [getattr(model, name) for name in ("head", "head_dist") if isinstance(getattr(model, name, None), nn.Linear)]


def _last_norm(model: Any) -> str:
    return "fc_norm" if isinstance(model.norm, nn.Identity) else "norm"


def _first_linears(mlp: Any) -> list[nn.Linear]:
    """What reads an MLP's input: `fc1`, or the two halves of a SwiGLU."""
    return [linear for name in ("fc1", "fc1_g", "fc1_x") if (linear := getattr(mlp, name, None)) is not None]
