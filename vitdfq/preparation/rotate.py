"""Rotate the residual stream, the heads and the MLP's hidden layer: outlier channels vanish, the function does not change.

QuaRot (arXiv 2404.00456), SpinQuant (2405.16406) and SliceGPT (2401.15024) for ViTs: LayerNorm becomes RMSNorm once everything
that writes into the residual stream is centred, and RMSNorm commutes with any rotation. No data is needed.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vitdfq.models import FAMILIES, family_of
from vitdfq.preparation.fold import fold_layer_scale
from vitdfq.preparation.hadamard import HadamardTransform, random_orthogonal

SEED = 0  # part of the checkpoint: `load` builds the same matrices again


@torch.no_grad()
def rotate_residual(model: nn.Module) -> None:
    """Rotate the residual stream of a ViT in place: writers by A = Q (I - 11ᵀ/D), readers by Qᵀ; LayerNorm becomes RMSNorm.

    Raises:
        ValueError: the model is not a pre-norm ViT.
    """
    _require_vit(model, "rotate_residual")
    fold_layer_scale(model)  # the scale would stand between a writer and the stream
    width = model.pos_embed.shape[-1] if model.pos_embed is not None else model.num_features
    q = random_orthogonal(width, SEED)
    writer = q - q.mean(1, keepdim=True)  # Q (I - 11ᵀ/D)
    _rotate_output(model.patch_embed.proj, writer)
    for name in ("pos_embed", "cls_token", "dist_token", "reg_token"):
        tokens = getattr(model, name, None)
        if tokens is not None:
            tokens.copy_(tokens.double() @ writer.T.to(tokens.device))
    for block in model.blocks:
        _rotate_output(block.attn.proj, writer)
        _rotate_output(block.mlp.fc2, writer)
        block.norm1 = _absorb_norm(block.norm1, [block.attn.qkv], q)
        block.norm2 = _absorb_norm(block.norm2, _first_linears(block.mlp), q)
    heads = [getattr(model, name) for name in ("head", "head_dist") if isinstance(getattr(model, name, None), nn.Linear)]
    last = "norm" if isinstance(model.norm, nn.LayerNorm) else "fc_norm"
    setattr(model, last, _absorb_norm(getattr(model, last), heads, q))


@torch.no_grad()
def rotate_heads(model: nn.Module) -> None:
    """Rotate queries and keys, and values and `proj`, inside each head of a ViT, in place; QK-norm keeps its q and k."""
    _require_vit(model, "rotate_heads")
    for block in model.blocks:
        attention = block.attn
        heads, dim = attention.num_heads, attention.head_dim
        r_qk, r_v = random_orthogonal(dim, SEED + 1), random_orthogonal(dim, SEED + 2)
        normed = not isinstance(attention.q_norm, nn.Identity)
        rotations = [torch.eye(dim).double() if normed else r_qk] * 2 + [r_v]
        every_head = torch.block_diag(*(rotation for rotation in rotations for _ in range(heads)))
        _rotate_output(attention.qkv, every_head)
        values = torch.block_diag(*[r_v] * heads).to(attention.proj.weight.device)
        attention.proj.weight.copy_(attention.proj.weight.double() @ values.T)


@torch.no_grad()
def rotate_mlp(model: nn.Module) -> None:
    """Put a Hadamard transform between GELU and `fc2` of a ViT and undo it in `fc2`, in place. It stays at run time."""
    _require_vit(model, "rotate_mlp")
    for block in model.blocks:
        fc2 = block.mlp.fc2
        transform = HadamardTransform(fc2.in_features, SEED + 3).to(fc2.weight.device)
        fc2.weight.copy_(fc2.weight.double() @ transform.matrix().T)
        block.mlp.norm = nn.Sequential(block.mlp.norm, transform)


def why_not_rotatable(model: nn.Module) -> str | None:
    """Return why the rotations do not fit a model; None when they do."""
    plain = family_of(model) is FAMILIES["vit"] and all(type(block) is Block for block in model.blocks)
    if not plain or not isinstance(model.norm_pre, nn.Identity):
        return f"works on pre-norm ViTs only (ViT, DeiT, DINOv2), not on this {type(model).__name__}"
    attentions = [block.attn for block in model.blocks]
    if any(attention.gate is not None or not isinstance(attention.norm, nn.Identity) for attention in attentions):
        return "works on pre-norm ViTs only, and cannot pass a gate or norm inside attention"
    return None


def _require_vit(model: nn.Module, step: str) -> None:
    reason = why_not_rotatable(model)
    if reason:
        raise ValueError(f"{step} {reason}")


def _rotate_output(linear: nn.Module, matrix: Tensor) -> None:
    """Make a Linear or Conv2d write matrix @ y where it wrote y."""
    matrix = matrix.to(linear.weight.device)
    rotated = matrix @ linear.weight.double().flatten(1)
    linear.weight.copy_(rotated.view_as(linear.weight))
    if linear.bias is not None:
        linear.bias.copy_(matrix @ linear.bias.double())


def _absorb_norm(norm: nn.LayerNorm, readers: list[nn.Linear], q: Tensor) -> nn.RMSNorm:
    """Move a LayerNorm's affine and the inverse rotation into the linears that read it; return what takes its place."""
    q = q.to(norm.weight.device)
    for reader in readers:
        weight = reader.weight.double()
        shift = weight @ norm.bias.double() if norm.bias is not None else weight.new_zeros(len(weight))
        if reader.bias is None:
            reader.bias = nn.Parameter(shift.to(reader.weight.dtype), requires_grad=False)
        else:
            reader.bias.add_(shift.to(reader.bias.dtype))
        reader.weight.copy_((weight * norm.weight.double()) @ q.T)
    return nn.RMSNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def _first_linears(mlp: nn.Module) -> list[nn.Linear]:
    """What reads an MLP's input: `fc1`, or the two halves of a SwiGLU."""
    return [linear for name in ("fc1", "fc1_g", "fc1_x") if (linear := getattr(mlp, name, None)) is not None]
