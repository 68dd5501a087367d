"""The residual stream of Swin, a rotation per stage: it keeps the mean of the channels, and LayerNorm stays LayerNorm.

Patch merging normalises four tokens together. Centering each token first, as for ViTs, would change their joint mean
and variance; a rotation with Q1 = 1 keeps both, so that LN(Qh) = Q LN(h) without affine, for one token and for four side by side.
"""

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from vitdfq.preparation.hadamard import mean_preserving
from vitdfq.preparation.linear import Affine, absorb_norm, affine_of, has_affine, rotate_input, rotate_output


def blocks(model: Any) -> list[Any]:
    return [block for stage in model.layers for block in stage.blocks]


def why_not(model: Any) -> str | None:
    """Return what stands in the way of every rotation."""
    if any(type(block) is not SwinTransformerBlock for block in blocks(model)):
        return f"works on pre-norm ViTs and Swin (version 1) only, not on this {type(model).__name__}"
    return None


def why_not_residual(model: Any) -> str | None:
    """Return what stands in the way of rotating the stream, though heads and MLPs may be rotated."""
    pooling = model.head.global_pool.pool_type
    if pooling not in ("avg", "fast", "fastavg"):
        return f"works on heads that read the mean only: {pooling!r} pooling depends on the basis"
    norms = [norm for block in blocks(model) for norm in (block.norm1, block.norm2)]
    merges = [stage.downsample.norm for stage in model.layers if not isinstance(stage.downsample, nn.Identity)]
    embedding = [norm for norm in [model.patch_embed.norm] if not isinstance(norm, nn.Identity)]
    if not all(has_affine(norm) for norm in (*embedding, *norms, *merges, model.norm)):
        return "works where every norm is a LayerNorm with its affine only; is the stream rotated already?"
    return None


def rotate_residual(model: Any, seed: int) -> None:
    """Writers by Q, readers by Qᵀ, norms without affine, in place; patch merging reads one stage's Q and writes the next's."""
    q = mean_preserving(model.patch_embed.proj.out_channels, seed)
    if isinstance(model.patch_embed.norm, nn.Identity):
        rotate_output(model.patch_embed.proj, q)
    else:  # this norm writes into the stream: no linear layer follows that could absorb its affine and Q
        model.patch_embed.norm = _norm_then(model.patch_embed.norm, q)
    for stage in model.layers:
        merge = stage.downsample
        if not isinstance(merge, nn.Identity):
            merge.norm = absorb_norm(merge.norm, [merge.reduction], torch.block_diag(q, q, q, q))
            q = mean_preserving(merge.reduction.out_features, seed)
            rotate_output(merge.reduction, q)
        for block in stage.blocks:
            rotate_output(block.attn.proj, q)
            rotate_output(block.mlp.fc2, q)
            if _pads(block):  # with zeros behind the norm: qkv must not give them the norm's shift
                block.norm1 = _norm_then(block.norm1, q, undo=q)
                rotate_input(block.attn.qkv, q)
            else:
                block.norm1 = absorb_norm(block.norm1, [block.attn.qkv], q)
            block.norm2 = absorb_norm(block.norm2, [block.mlp.fc1], q)
    model.norm = absorb_norm(model.norm, [model.head.fc], q)


def unrotate_residual(model: Any, seed: int) -> None:
    """Writers and readers back in timm's basis, in place; a norm and its matrix become a norm with affine again."""
    q = mean_preserving(model.patch_embed.proj.out_channels, seed)
    if isinstance(model.patch_embed.norm, nn.Identity):
        rotate_output(model.patch_embed.proj, q.T)
    else:
        model.patch_embed.norm = _norm_alone(model.patch_embed.norm, q)
    for stage in model.layers:
        merge = stage.downsample
        if not isinstance(merge, nn.Identity):
            rotate_input(merge.reduction, torch.block_diag(q, q, q, q).T)
            q = mean_preserving(merge.reduction.out_features, seed)
            rotate_output(merge.reduction, q.T)
        for block in stage.blocks:
            rotate_output(block.attn.proj, q.T)
            rotate_output(block.mlp.fc2, q.T)
            rotate_input(block.attn.qkv, q.T)
            rotate_input(block.mlp.fc1, q.T)
            if isinstance(block.norm1, nn.Sequential):
                block.norm1 = _norm_alone(block.norm1, q, undo=q)
    rotate_input(model.head.fc, q.T)


def _norm_then(norm: nn.LayerNorm, q: Tensor, undo: Tensor | None = None) -> nn.Module:
    """Return x -> q (gain · n(undoᵀ x) + shift) as a bare norm and one matrix (D, D), which stays in float at run time."""
    gain, shift = affine_of(norm)
    q = q.to(gain.device)
    matrix = q * gain
    if undo is not None:
        matrix = matrix @ undo.T.to(gain.device)
    affine = Affine(matrix.to(norm.weight.dtype), (q @ shift).to(norm.weight.dtype))
    return nn.Sequential(absorb_norm(norm, [], q), affine)


def _norm_alone(pair: nn.Sequential, q: Tensor, undo: Tensor | None = None) -> nn.LayerNorm:
    """Undo `_norm_then`."""
    bare, affine = pair
    gain = q.T.to(affine.weight.device) @ affine.weight.double()
    if undo is not None:
        gain = gain @ undo.to(gain.device)
    norm = nn.LayerNorm(bare.normalized_shape, eps=bare.eps).to(affine.weight).requires_grad_(False)
    norm.weight.copy_(gain.diagonal())
    norm.bias.copy_(q.T.to(gain.device) @ affine.bias.double())
    return norm


def _pads(block: Any) -> bool:
    """Return whether timm fills this block's grid up to whole windows; at free image sizes it might."""
    uneven = any(tokens % window for tokens, window in zip(block.input_resolution, block.window_size, strict=True))
    return uneven or block.dynamic_mask
