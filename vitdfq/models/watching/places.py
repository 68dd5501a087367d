"""What an attention that was opened by watching runs in place of timm's products: functions that receive the submodules."""

import math
from typing import Any, final

from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.attention import has_hooks, untouched
from vitdfq.models.vit_attention import score_bias


@final
class FirstRow(nn.Module):
    """The first query's row of attention, of maps (..., queries, keys)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps[..., 0, :]


def attend(
    qk: nn.Module,
    softmax: nn.Module,
    av: nn.Module,
    class_row: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # of a model in training mode, which is none here
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what torch's `scaled_dot_product_attention` does: by the modules, or fused if they are untouched."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    is_read = has_hooks(class_row)
    if not is_read and untouched(qk, softmax, av):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=factor, enable_gqa=enable_gqa
        )
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], dim=-3) for part in (key, value))
    bias = score_bias(query, attn_mask, is_causal)
    scores = qk(query * factor, key.transpose(-2, -1))
    maps = softmax(scores if bias is None else scores + bias)
    if is_read:
        class_row(maps)
    return av(maps, value)


def attention_maps(softmax: nn.Module, class_row: nn.Module, scores: Tensor) -> Tensor:
    """Return the maps (..., queries, keys) of scores."""
    maps = softmax(scores)
    if has_hooks(class_row):
        class_row(maps)
    return maps


def product(matmul: nn.Module, left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right."""
    return matmul(left, right)


def transposed_product(matmul: nn.Module, left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, where softmax's output, which `matmul` reads first, stands on the right."""
    return matmul(right.mT, left.mT).mT.contiguous()


def layer_and_bias(layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a layer without bias writes, and a bias."""
    y = layer(x)
    return y if bias is None else y + bias


def product_with_weight(matmul: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (..., in) times a weight (out, in) that is no layer's."""
    y = matmul(x, weight.mT)
    return y if bias is None else y + bias


def einsum(matmul: nn.Module, equation: str, left: Tensor, right: Tensor) -> Tensor:
    """Return torch's einsum of two tensors as one matrix product.

    Each letter stands in the output, or in both inputs.
    """
    lefts, rights, output = letters_of(equation)
    batch = [letter for letter in lefts if letter in rights and letter in output]
    inner = [letter for letter in lefts if letter in rights and letter not in output]
    rows = [letter for letter in lefts if letter not in rights]
    columns = [letter for letter in rights if letter not in lefts]
    sizes: dict[str, Any] = dict(zip(lefts, left.shape, strict=True)) | dict(zip(rights, right.shape, strict=True))

    def arranged(tensor: Tensor, letters: str, first: list[str], last: list[str]) -> Tensor:
        tensor = tensor.permute([letters.index(letter) for letter in (*batch, *first, *last)])
        outer = [sizes[letter] for letter in batch]
        return tensor.reshape(*outer, math.prod(sizes[k] for k in first), math.prod(sizes[k] for k in last))

    y = matmul(arranged(left, lefts, rows, inner), arranged(right, rights, inner, columns))
    letters = [*batch, *rows, *columns]
    return y.reshape([sizes[letter] for letter in letters]).permute([letters.index(letter) for letter in output])


def letters_of(equation: str) -> tuple[str, str, str]:
    """Return the letters of the two inputs and of the output of an einsum."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    left, _, right = inputs.partition(",")
    return left, right, output
