"""Rotate the residual stream, the heads and the MLP's hidden layer: outlier channels vanish, the function does not change.

QuaRot (arXiv 2404.00456), SpinQuant (2405.16406) and SliceGPT (2401.15024), for vision transformers; no data is needed. A family
lists what writes and what reads each stream (`Rotation`); the arithmetic is the same for all.

Where every norm is a LayerNorm of one token, the writers are centered: LayerNorm then is RMSNorm, which any rotation leaves as it
is. Swin's patch merging normalizes four tokens together. Centering each token first would change their joint mean and variance. A
rotation with Q1 = 1 keeps both, so that LN(Qh) = Q LN(h) without affine, for one token and for four side by side.
"""

import torch
from torch import Tensor, nn

from vitdfq.models import FAMILIES, Rows, attention_sites, family_of, projections
from vitdfq.models.family import Rotation, Stream
from vitdfq.preparation.fold import fold_layer_scale
from vitdfq.preparation.hadamard import HadamardTransform, mean_preserving, random_orthogonal
from vitdfq.preparation.linear import absorb_norm, has_affine, layer_at, norm_then, rotate_input, rotate_output

SEED = 0  # part of the checkpoint: `load` builds the same matrices again


@torch.no_grad()
def rotate_residual(model: nn.Module) -> bool:
    """Rotate every residual stream in place: writers by Q, readers by Qᵀ, the norms' affine into their readers; return True.

    LayerScale is folded first: it would stand between a writer and the stream.

    Raises:
        ValueError: something in the model does not commute with a rotation.
    """
    rotation = rotation_of(model, "rotate_residual", why_not_rotatable(model))
    fold_layer_scale(model)
    for stream in rotation.streams(model):
        _rotate_stream(model, stream, rotation.centered)
    return True


@torch.no_grad()
def rotate_heads(model: nn.Module) -> bool:
    """Rotate queries and keys, and values and their reader, inside each head, in place; QK-norm keeps its q and k. Return True.

    Raises:
        ValueError: the model's blocks are of a kind that cannot be rotated.
    """
    rotation_of(model, "rotate_heads", why_not_at_all(model))
    for site, projection in zip(attention_sites(model), projections(model), strict=True):
        keys, values, queries = projection.keys, projection.values, projection.queries
        rotated: list[tuple[Rows, Tensor]] = []
        if queries is not None:
            r_qk = random_orthogonal(len(keys.rows) // site.num_heads, SEED + 1)
            rotated += [(queries, r_qk), (keys, r_qk)]
        if projection.reader is not None:
            r_v = random_orthogonal(len(values.rows) // site.num_heads, SEED + 2)
            rotated.append((values, r_v))
            rotate_input(layer_at(model, projection.reader), torch.block_diag(*[r_v] * site.num_heads))
        for name in dict.fromkeys(rows.linear for rows, _ in rotated):
            linear = layer_at(model, name)
            rotate_output(linear, _by_head(len(linear.weight), [(rows, r) for rows, r in rotated if rows.linear == name]))
        for rows, r in rotated:
            if rows.bias:
                bias = model.get_parameter(rows.bias)
                bias.copy_((bias.double().view(-1, len(r)) @ r.T.to(bias.device)).flatten())
    return True


@torch.no_grad()
def rotate_mlp(model: nn.Module) -> bool:
    """Put a Hadamard transform between GELU and the linear layer that reads it, and undo it there, in place; return True.

    It stays at run time.

    Raises:
        ValueError: the model's blocks are of a kind that cannot be rotated.
    """
    rotation_of(model, "rotate_mlp", why_not_at_all(model))
    for site in family_of(model).mlp_sites(model):
        reader = layer_at(model, site.reader)
        transform = HadamardTransform(reader.weight.shape[1], SEED + 3)
        rotate_input(reader, transform.matrix())
        model.set_submodule(site.hidden, nn.Sequential(model.get_submodule(site.hidden), transform.to(reader.weight)))
    return True


def rotation_of(model: nn.Module, step: str, reason: str | None) -> Rotation:
    """Return the rotation of the model's family; ValueError with the `reason` why `step` does not fit, if there is one."""
    rotation = family_of(model).rotation
    if rotation is None or reason:
        raise ValueError(f"{step} {reason}")
    return rotation


def why_not_at_all(model: nn.Module) -> str | None:
    """Return what prevents every rotation of a model; None when heads and MLPs can be rotated."""
    rotation = family_of(model).rotation
    if rotation is None:
        rotatable = " and ".join(name for name, family in FAMILIES.items() if family.rotation)
        return f"works on {rotatable} only, not on this {type(model).__name__}"
    return rotation.why_not(model)


def why_not_rotatable(model: nn.Module) -> str | None:
    """Return why the rotations do not all fit a model; None when they do."""
    rotation, reason = family_of(model).rotation, why_not_at_all(model)
    if rotation is None or reason:
        return reason
    if reason := rotation.why_not_streams(model):
        return reason
    for stream in rotation.streams(model):
        writers = [model.get_submodule(name) for name in stream.writers]
        norms = [part for part in writers if not isinstance(part, nn.Linear | nn.Conv2d)]
        norms += [model.get_submodule(site.norm) for site in stream.readers]
        if not all(has_affine(norm) for norm in norms):
            return "works where every norm is a LayerNorm with its affine only; is the stream rotated already?"
    return None


def stream_basis(stream: Stream, centered: bool) -> Tensor:
    """Return the Q (width, width), float64, of a stream; it keeps the mean over channels where norms may not lose it."""
    return random_orthogonal(stream.width, SEED) if centered else mean_preserving(stream.width, SEED)


def side_by_side(q: Tensor, in_features: int) -> Tensor:
    """Return the block diagonal of q (D, D) for a reader of `in_features` = k D: k tokens side by side."""
    return torch.block_diag(*[q] * (in_features // len(q)))


def _rotate_stream(model: nn.Module, stream: Stream, centered: bool) -> None:
    q = stream_basis(stream, centered)
    written = q - q.mean(1, keepdim=True) if centered else q  # Q (I - 11ᵀ/D)
    kind = nn.RMSNorm if centered else nn.LayerNorm
    for name in stream.writers:
        part = model.get_submodule(name)
        if isinstance(part, nn.LayerNorm) and not centered:  # no linear layer follows that could absorb its affine and Q
            model.set_submodule(name, norm_then(part, q, kind))
        else:
            rotate_output(layer_at(model, name), written)
    for name in stream.tokens:
        tokens = model.get_parameter(name)
        tokens.copy_(tokens.double() @ written.T.to(tokens.device))
    for site in stream.readers:
        norm, readers = model.get_submodule(site.norm), [layer_at(model, name) for name in site.readers]
        assert isinstance(norm, nn.LayerNorm)
        if site.shifts:
            bare = absorb_norm(norm, readers, side_by_side(q, readers[0].weight.shape[1]), kind)
        else:  # zeros are padded behind the norm: its readers must not give them its shift
            bare = norm_then(norm, q, kind, undo=q)
            for reader in readers:
                rotate_input(reader, q)
        model.set_submodule(site.norm, bare)


def _by_head(size: int, rotated: list[tuple[Rows, Tensor]]) -> Tensor:
    """Return the matrix (size, size) that rotates the rows of each head by its r (width, width) and keeps all others."""
    matrix = torch.eye(size, dtype=torch.float64)
    for rows, r in rotated:
        for head in torch.tensor(rows.rows).view(-1, len(r)):
            matrix[head[:, None], head] = r
    return matrix
