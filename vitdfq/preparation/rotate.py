"""Rotate the residual stream, the heads and the MLP's hidden layer: outlier channels vanish, the function does not change.

QuaRot (arXiv 2404.00456), SpinQuant (2405.16406) and SliceGPT (2401.15024), for vision transformers; no data is needed. A family
lists what writes and what reads each stream (`Rotation`); the arithmetic is the same for all.

Where every norm is a LayerNorm of one token, the writers are centered: LayerNorm then is RMSNorm, which any rotation leaves as it
is. Swin's patch merging normalizes four tokens together. Centering each token first would change their joint mean and variance. A
rotation with Q1 = 1 keeps both, so that LN(Qh) = Q LN(h) without affine, for one token and for four side by side. RMSNorms read
no mean: any rotation will do, and nothing is centered.

A norm that writes into the stream (CLIP's in front of the blocks, Swin's behind the patches) becomes a bare norm and one matrix,
and so does the norm at an exit, behind which a maximum, or the user of a model without a head, reads the stream in its own basis.
"""

import torch
from torch import Tensor, nn

from vitdfq.models import Projections, Rows, attention_sites, family_of, projections, units
from vitdfq.models.attention import Affine, OpenedSite
from vitdfq.models.family import Rotation, Stream
from vitdfq.models.hadamard import HadamardTransform, mean_preserving, random_orthogonal
from vitdfq.models.norms import RMS_NORMS
from vitdfq.preparation.fold import fold_layer_scale
from vitdfq.preparation.linear import (
    Layer,
    Norm,
    absorb_norm,
    layer_at,
    norm_then,
    rotate_input,
    rotate_output,
)
from vitdfq.preparation.outcome import Outcome
from vitdfq.preparation.why_not import reading_norms, why_not_heads, why_not_mlp, why_not_residual

SEED = 0  # part of the checkpoint: `load` builds the same matrices again


@torch.no_grad()
def rotate_residual(model: nn.Module) -> Outcome:
    """Rotate every residual stream in place: writers by Q, readers by Qᵀ, the norms' affine into their readers.

    LayerScale is folded first: it would stand between a writer and the stream.

    Raises:
        ValueError: something in the model does not commute with a rotation.
    """
    rotation = rotation_of(model, "rotate_residual", why_not_residual(model))
    folded = fold_layer_scale(model)
    streams = rotation.streams(model)
    for stream in streams:
        _rotate_stream(model, stream)
    what = "the residual stream" if len(streams) == 1 else f"{len(streams)} residual streams"
    parts = [[part for top in unit.modules for part in top.modules()] for unit in units(model)[:-1]]
    blocks = sum(any(isinstance(part, OpenedSite) for part in unit) for unit in parts)
    note = f" ({folded.what} folded)" if folded.changed else ""
    return Outcome("rotated", f"{what} of {blocks} block{'s' * (blocks != 1)}{note}")


@torch.no_grad()
def rotate_heads(model: nn.Module) -> Outcome:
    """Rotate queries and keys, and values and their reader, inside each head, in place; QK-norm keeps its q and k.

    Raises:
        ValueError: the model's blocks are of a kind that cannot be rotated.
    """
    rotation_of(model, "rotate_heads", why_not_heads(model))
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
    return Outcome("rotated", _heads(projections(model)))


def _heads(sites: list[Projections]) -> str:
    """Return "heads", or of how many attentions queries and keys, and values, can be rotated."""
    scores, values = sum(site.queries is not None for site in sites), sum(site.reader is not None for site in sites)
    if scores == values == len(sites):
        return "heads"
    return f"heads (queries and keys of {scores}, values of {values} of {len(sites)} attentions)"


@torch.no_grad()
def rotate_mlp(model: nn.Module) -> Outcome:
    """Put a Hadamard transform between GELU and the linear layer that reads it, and undo it there, in place.

    It stays at run time.

    Raises:
        ValueError: the model's blocks are of a kind that cannot be rotated.
    """
    rotation_of(model, "rotate_mlp", why_not_mlp(model))
    for site in family_of(model).mlp_sites(model):
        reader = layer_at(model, site.reader)
        transform = HadamardTransform(reader.weight.shape[1], SEED + 3)
        rotate_input(reader, transform.matrix())
        model.set_submodule(site.hidden, nn.Sequential(model.get_submodule(site.hidden), transform.to(reader.weight)))
    return Outcome("rotated", "MLPs")


def rotation_of(model: nn.Module, step: str, reason: str | None) -> Rotation:
    """Return the rotation of the model's family; ValueError with the `reason` why `step` does not fit, if there is one."""
    rotation = family_of(model).rotation
    if rotation is None or reason:
        raise ValueError(f"{step} {reason}")
    return rotation


def stream_basis(stream: Stream) -> Tensor:
    """Return the Q (width, width), float64, of a stream; it keeps the mean over channels where norms may not lose it."""
    return random_orthogonal(stream.width, SEED) if stream.centered else mean_preserving(stream.width, SEED)


def centering(q: Tensor) -> Tensor:
    """Return Q (I - 11ᵀ/D): the mean over channels is lost first."""
    return q - q.mean(1, keepdim=True)


def side_by_side(q: Tensor, in_features: int) -> Tensor:
    """Return the block diagonal of q (D, D) for a reader of `in_features` = k D: k tokens side by side."""
    return torch.block_diag(*[q] * (in_features // len(q)))


def _rotate_stream(model: nn.Module, stream: Stream) -> None:
    q = stream_basis(stream)
    reads_mean = not any(isinstance(norm, RMS_NORMS) for norm in reading_norms(model, stream))
    written = centering(q) if stream.centered and reads_mean else q
    kind: Norm = nn.RMSNorm if stream.centered or not reads_mean else nn.LayerNorm
    for name in stream.writers:
        part = model.get_submodule(name)
        if isinstance(part, Layer):
            rotate_output(part, written)
        else:  # no linear layer follows that could absorb its affine and Q; what it reads is not centered
            model.set_submodule(name, norm_then(part, written, nn.RMSNorm if isinstance(part, RMS_NORMS) else nn.LayerNorm))
    for name in stream.tokens:
        tokens = model.get_parameter(name)
        tokens.copy_(tokens.double() @ written.T.to(tokens.device))
    for site in stream.readers:
        norm, readers = model.get_submodule(site.norm), [layer_at(model, name) for name in site.readers]
        if site.shifts:
            bare = absorb_norm(norm, readers, side_by_side(q, readers[0].weight.shape[1]), kind)
        else:  # zeros are padded behind the norm: its readers must not give them its shift
            bare = norm_then(norm, q, kind, undo=q)
            for reader in readers:
                rotate_input(reader, q)
        model.set_submodule(site.norm, bare)
    if stream.exit:
        model.set_submodule(stream.exit, _turned_back(model, stream, q, kind))


def _turned_back(model: nn.Module, stream: Stream, q: Tensor, kind: Norm) -> nn.Sequential:
    """Return the norm at a stream's exit, or Identity, and the matrix that gives the stream its own basis again."""
    assert stream.exit is not None
    part, first = model.get_submodule(stream.exit), layer_at(model, stream.readers[0].readers[0])
    if isinstance(part, nn.Identity):
        return nn.Sequential(part, Affine(q.T.to(first.weight)))
    return norm_then(part, torch.eye(len(q), dtype=q.dtype), kind, undo=q)


def _by_head(size: int, rotated: list[tuple[Rows, Tensor]]) -> Tensor:
    """Return the matrix (size, size) that rotates the rows of each head by its r (width, width) and keeps all others."""
    matrix = torch.eye(size, dtype=torch.float64)
    for rows, r in rotated:
        for head in torch.tensor(rows.rows).view(-1, len(r)):
            matrix[head[:, None], head] = r
    return matrix
