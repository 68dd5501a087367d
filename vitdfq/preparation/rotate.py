"""Rotate the residual stream, the heads and the MLP's hidden layer: outlier channels vanish, the function does not change.

QuaRot (arXiv 2404.00456) and SpinQuant (2405.16406) for ViTs and Swin; no data is needed. What a family's stream needs is in
`rotate_vit.py` and `rotate_swin.py`; heads and MLPs are the same in both.
"""

from types import ModuleType
from typing import Any

import torch
from torch import nn

from vitdfq.models import family_of
from vitdfq.preparation import rotate_swin, rotate_vit
from vitdfq.preparation.hadamard import HadamardTransform, random_orthogonal
from vitdfq.preparation.linear import rotate_input, rotate_output

SEED = 0  # part of the checkpoint: `load` builds the same matrices again

ROTATABLE: dict[str, ModuleType] = {  # family -> blocks, why_not, why_not_residual, rotate_residual
    "vit": rotate_vit,
    "swin": rotate_swin,
}


@torch.no_grad()
def rotate_residual(model: nn.Module) -> None:
    """Rotate the residual stream in place: writers by Q, readers by Qᵀ, the norms' affine into their readers.

    Raises:
        ValueError: something in the model does not commute with a rotation.
    """
    _refuse("rotate_residual", why_not_rotatable(model))
    ROTATABLE[family_of(model).name].rotate_residual(model, SEED)


@torch.no_grad()
def rotate_heads(model: nn.Module) -> None:
    """Rotate queries and keys, and values and `proj`, inside each head, in place; QK-norm keeps its q and k."""
    for block in _blocks(model, "rotate_heads"):
        attention = block.attn
        heads, dim = attention.num_heads, attention.proj.in_features // attention.num_heads
        r_qk, r_v = random_orthogonal(dim, SEED + 1), random_orthogonal(dim, SEED + 2)
        normed = not isinstance(getattr(attention, "q_norm", nn.Identity()), nn.Identity)
        rotations = [torch.eye(dim).double() if normed else r_qk] * 2 + [r_v]
        every_head = torch.block_diag(*(rotation for rotation in rotations for _ in range(heads)))
        rotate_output(attention.qkv, every_head)
        rotate_input(attention.proj, torch.block_diag(*[r_v] * heads))


@torch.no_grad()
def rotate_mlp(model: nn.Module) -> None:
    """Put a Hadamard transform between GELU and `fc2`, and undo it in `fc2`, in place. It stays at run time."""
    for block in _blocks(model, "rotate_mlp"):
        fc2 = block.mlp.fc2
        transform = HadamardTransform(fc2.in_features, SEED + 3)
        rotate_input(fc2, transform.matrix())
        block.mlp.norm = nn.Sequential(block.mlp.norm, transform.to(fc2.weight))


def why_not_rotatable(model: nn.Module) -> str | None:
    """Return why the rotations do not all fit a model; None when they do."""
    family = family_of(model).name
    return _why_not(model) or ROTATABLE[family].why_not_residual(model)


def _why_not(model: nn.Module) -> str | None:
    family = family_of(model).name
    if family not in ROTATABLE:
        return f"works on {' and '.join(ROTATABLE)} only, not on this {type(model).__name__}"
    return ROTATABLE[family].why_not(model)


def _blocks(model: nn.Module, step: str) -> list[Any]:
    _refuse(step, _why_not(model))
    return ROTATABLE[family_of(model).name].blocks(model)


def _refuse(step: str, reason: str | None) -> None:
    if reason:
        raise ValueError(f"{step} {reason}")
