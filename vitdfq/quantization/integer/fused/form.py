"""What a block of a ViT with integer sites computes, as arrays of numbers; None for blocks that the kernels cannot compute."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.models.hadamard import HadamardTransform, sylvester
from vitdfq.models.norms import NORMS
from vitdfq.models.plain_block import is_plain_block
from vitdfq.quantization.integer.codes import AffineCodes, Codes, Range, TokenCodes
from vitdfq.quantization.integer.layers import IntegerLinear, IntegerMatMul
from vitdfq.quantization.integer.tables import LogCodes
from vitdfq.quantization.quantizers.forms import Octaves

SMALLEST_TRANSFORM = 16  # of a power of two: the values of one vector
MOST_OCTAVES = 126  # whole powers of two that a float32 holds
WORD = 4  # codes that a kernel reads at once: a layer's inputs are a multiple


class Weight(NamedTuple):
    """A layer: scale · (numbers @ x) + bias for real values x."""

    numbers: Tensor  # (out, in) int8: code less zero point
    scale: Tensor  # (out,)
    bias: Tensor  # (out,)


class Input(NamedTuple):
    """What a layer reads: values less `shift` (in,), rounded to the range of their token."""

    range: Range
    shift: Tensor | None


class Norm(NamedTuple):
    """gain · x̂ + offset of a norm, both (C,)."""

    gain: Tensor
    offset: Tensor
    center: bool  # subtracts the mean
    epsilon: float


class Transform(NamedTuple):
    """A Hadamard transform of channels in another order: `order[new]` is the old channel. See `transform` in tokens.c."""

    order: Tensor
    signs: Tensor  # with the transform's scale, in the new order
    core: Tensor  # (c, c), entries ±1


class Attention(NamedTuple):
    """Ranges of queries (scaled, less `shift`), keys and values, (H,) each; softmax's grid."""

    heads: int
    scale: float
    query: Range
    key: Range
    value: Range
    shift: Tensor | None  # (heads, 1, head_dim)
    soft: Range | Octaves
    renormalize: bool


@dataclass(frozen=True)
class BlockForm:
    """x + proj(attention(qkv(norm1(x)))), then x + fc2(transform(gelu(fc1(norm2(x)))))."""

    norms: tuple[Norm, Norm]
    inputs: dict[str, Input]  # "qkv", "proj", "fc1", "fc2"
    weights: dict[str, Weight]
    attention: Attention
    transform: Transform | None
    prefix: int  # tokens with a range of their own


def block_form(block: Any) -> BlockForm | None:
    """The form of a block whose sites are integer; None if anything in it is of another kind."""
    if not is_plain_block(block):
        return None
    layers = {"qkv": block.attn.qkv, "proj": block.attn.proj, "fc1": block.mlp.fc1, "fc2": block.mlp.fc2}
    inputs = {name: _input(layer) for name, layer in layers.items()}
    weights = {name: _weight(layer) for name, layer in layers.items()}
    norms = _norm(block.norm1), _norm(block.norm2)
    attention, transform = _attention(block.attn), _transform(block.mlp.norm)
    if None in (*inputs.values(), *weights.values(), *norms, attention) or transform is NotImplemented:
        return None
    prefixes = {len(entry.range.scale) - 1 for entry in inputs.values()} - {0}
    if len(prefixes) > 1:
        return None
    return BlockForm(norms, inputs, weights, attention, transform, max(prefixes, default=0))


def _input(layer: Any) -> Input | None:
    if not isinstance(layer, IntegerLinear):
        return None
    found = token_range(layer.codes)
    return None if found is None else Input(found, layer.codes.shift)


def token_range(codes: Codes) -> Range | None:
    """The static range of a layer's input, with an entry for each prefix token and one for all others."""
    match codes:
        case AffineCodes(per_tensor=True) | TokenCodes():
            found = codes.range()
            return found if found is not None and (len(found.scale) == 1 or found.fits_int8) else None
    return None


def _weight(layer: Any) -> Weight | None:
    weight = layer.weight if isinstance(layer, IntegerLinear) else None
    if weight is None or len(weight.values) > 1 or weight.has_zeros or weight.values.shape[2] % WORD:
        return None
    return Weight(weight.values[0], weight.scale[0], layer.bias.detach())


def _norm(norm: Any) -> Norm | None:
    if not isinstance(norm, NORMS) or len(norm.normalized_shape) != 1 or norm.eps is None:
        return None
    size, weight, bias = norm.normalized_shape[0], norm.weight, getattr(norm, "bias", None)
    gain = torch.ones(size) if weight is None else weight.detach()
    offset = torch.zeros(size) if bias is None else bias.detach()
    return Norm(gain, offset, isinstance(norm, nn.LayerNorm), norm.eps)


def _attention(attention: Any) -> Attention | None:
    scores, mixing, heads = attention.qk, attention.av, attention.num_heads
    if not (isinstance(scores, IntegerMatMul) and isinstance(mixing, IntegerMatMul)) or attention.head_dim % WORD:
        return None
    operands = [scores.left_codes, scores.right_codes, mixing.right_codes]
    ranges = [codes.range(heads) if isinstance(codes, AffineCodes) else None for codes in operands]
    soft = _soft(mixing.left_codes)
    if None in ranges or soft is None or scores.renormalize or mixing.left_shift is not None:
        return None
    return Attention(heads, attention.scale, *ranges, scores.left_shift, soft, mixing.renormalize)


def _soft(codes: Codes) -> Range | Octaves | None:
    match codes:
        case AffineCodes(per_tensor=True, shift=None):
            return codes.range()
        case LogCodes(shift=None, grid=Octaves(bits=bits)) if 2**bits - 1 <= MOST_OCTAVES + 1:
            return codes.grid
    return None


def _transform(norm: nn.Module) -> Any:
    """None if nothing stands between GELU and its reader; NotImplemented for what the kernels do not know."""
    parts = [part for part in norm.modules() if not isinstance(part, nn.Sequential | nn.Identity)]
    if not parts:
        return None
    if len(parts) > 1 or not isinstance(parts[0], HadamardTransform):
        return NotImplemented
    hadamard = parts[0]
    factors = [sylvester(factor) for factor in (hadamard.left, hadamard.right)]
    if None in factors:
        return NotImplemented
    (left, left_core), (right, right_core) = factors
    if left * right < SMALLEST_TRANSFORM:
        return NotImplemented
    channels = torch.arange(len(hadamard.signs)).view(left, len(left_core), right, len(right_core))
    order = channels.permute(1, 3, 0, 2).flatten()
    core = torch.kron(left_core, right_core)
    size = core[0, 0].abs()
    return Transform(order, hadamard.signs[order] * size, core / size)
