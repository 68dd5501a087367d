"""What a block of a ViT with integer sites computes, as arrays of numbers in host memory."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.models.hadamard import HadamardTransform, sylvester
from vitdfq.models.norms import NORMS
from vitdfq.models.plain_block import is_plain_block
from vitdfq.quantization.integer.codes import MIDDLE, AffineCodes, Codes, Range, TokenCodes
from vitdfq.quantization.integer.layers import IntegerLinear, IntegerMatMul
from vitdfq.quantization.integer.tables import LogCodes, TableCodes
from vitdfq.quantization.quantizers.forms import Octaves, Twin

SMALLEST_TRANSFORM = 16  # of a power of two: the values of one vector
MOST_OCTAVES = 126  # whole powers of two that a float32 holds
LARGEST_LEVEL = 2**15 - 1  # of a twin grid, in fine steps
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
    soft: Range | Octaves | Twin
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

    def largest_product(self) -> int:
        """The largest size of a code, counted from 0, times a weight: in a layer, or in a product of attention."""
        layers = [span(entry.range) * int(self.weights[name].numbers.int().abs().max()) for name, entry in self.inputs.items()]
        attention = self.attention
        products = [*layers, span(attention.query) * reach(attention.key)]
        if isinstance(attention.soft, Range):  # levels of other grids are no bytes
            products.append(span(attention.soft) * reach(attention.value))
        return max(products)


def span(found: Range) -> int:
    """The largest code that is counted from the lowest number of a range."""
    return int(found.high.max() - found.low.min())


def reach(found: Range) -> int:
    """The largest size of an int8 of a range: its numbers, or, where they do not fit, the codes less 128."""
    return int(torch.stack([-found.low, found.high]).max().clamp(max=MIDDLE))


class UnknownPartError(Exception):
    """A part that the kernels do not know."""


def block_form(block: Any) -> BlockForm | None:
    """The form of a block whose sites are integer; None if anything in it is of another kind."""
    if not is_plain_block(block):
        return None
    layers = {"qkv": block.attn.qkv, "proj": block.attn.proj, "fc1": block.mlp.fc1, "fc2": block.mlp.fc2}
    try:
        inputs = {name: _input(layer) for name, layer in layers.items()}
        weights = {name: _weight(layer) for name, layer in layers.items()}
        prefixes = {len(entry.range.scale) - 1 for entry in inputs.values()} - {0}
        _require(len(prefixes) <= 1)
        norms = _norm(block.norm1), _norm(block.norm2)
        attention, transform = _attention(block.attn), _transform(block.mlp.norm)
    except UnknownPartError:
        return None
    return BlockForm(norms, inputs, weights, attention, transform, max(prefixes, default=0))


def _require(known: bool) -> None:
    if not known:
        raise UnknownPartError


def _host(values: Tensor) -> Tensor:
    return values.detach().cpu()


def _host_range(found: Range) -> Range:
    return Range(*map(_host, found))


def _input(layer: nn.Module) -> Input:
    """The static range of a layer's input, with an entry for each prefix token and one for all others."""
    codes = layer.codes if isinstance(layer, IntegerLinear) else None
    match codes:
        case AffineCodes(per_tensor=True) | TokenCodes():
            found = codes.range()
        case _:
            raise UnknownPartError
    if found is None or (len(found.scale) > 1 and not found.fits_int8):  # all tokens have one zero
        raise UnknownPartError
    return Input(_host_range(found), None if codes.shift is None else _host(codes.shift))


def _weight(layer: Any) -> Weight:
    weight = layer.weight  # of an IntegerLinear, as `_input` found
    _require(len(weight.values) == 1 and not weight.has_zeros and weight.values.shape[2] % WORD == 0)
    return Weight(*map(_host, (weight.values[0], weight.scale[0], layer.bias)))


def _norm(norm: Any) -> Norm:
    if not isinstance(norm, NORMS) or len(norm.normalized_shape) != 1 or norm.eps is None:
        raise UnknownPartError
    size, weight, bias = norm.normalized_shape[0], norm.weight, getattr(norm, "bias", None)
    gain = torch.ones(size) if weight is None else _host(weight)
    offset = torch.zeros(size) if bias is None else _host(bias)
    return Norm(gain, offset, isinstance(norm, nn.LayerNorm), norm.eps)


def _attention(attention: Any) -> Attention:
    scores, mixing, heads = attention.qk, attention.av, attention.num_heads
    _require(isinstance(scores, IntegerMatMul) and isinstance(mixing, IntegerMatMul) and attention.head_dim % WORD == 0)
    _require(not scores.renormalize and mixing.left_shift is None)
    query, key, value = (_head_range(codes, heads) for codes in (scores.left_codes, scores.right_codes, mixing.right_codes))
    shift = None if scores.left_shift is None else _host(scores.left_shift)
    return Attention(heads, attention.scale, query, key, value, shift, _soft(mixing.left_codes), mixing.renormalize)


def _head_range(codes: Codes, heads: int) -> Range:
    if not isinstance(codes, AffineCodes):
        raise UnknownPartError
    return _host_range(codes.range(heads))


def _soft(codes: Codes) -> Range | Octaves | Twin:
    match codes:
        case AffineCodes(per_tensor=True, shift=None):
            return _host_range(codes.range())
        case LogCodes(shift=None, grid=Octaves(bits=bits)) if 2**bits - 1 <= MOST_OCTAVES + 1:
            return codes.grid
        # Levels are multiplied as int16. Rounding at most doubles a value: a row of them sums to 2^16 at most, so that no sum of
        # products with values of 8 bits exceeds 2^24, which int32 and float32 hold exactly.
        case TableCodes(shift=None, grid=Twin() as twin) if twin.largest <= LARGEST_LEVEL:
            return twin
    raise UnknownPartError


def _transform(norm: nn.Module) -> Transform | None:
    """None if nothing stands between GELU and its reader."""
    parts = [part for part in norm.modules() if not isinstance(part, nn.Sequential | nn.Identity)]
    if not parts:
        return None
    hadamard, *others = parts
    if others or not isinstance(hadamard, HadamardTransform):
        raise UnknownPartError
    left, right = sylvester(_host(hadamard.left)), sylvester(_host(hadamard.right))
    if left is None or right is None or left[0] * right[0] < SMALLEST_TRANSFORM:
        raise UnknownPartError
    channels = torch.arange(len(hadamard.signs)).view(left[0], len(left[1]), right[0], len(right[1]))
    order = channels.permute(1, 3, 0, 2).flatten()
    core = torch.kron(left[1], right[1])
    size = core[0, 0].abs()
    return Transform(order, _host(hadamard.signs)[order] * size, core / size)
