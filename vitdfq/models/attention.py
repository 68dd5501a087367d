"""The two products and the softmax of an attention as submodules: places for hooks, quantizers and globs."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class MatMul(nn.Module):
    """`a @ b` for (..., N, K) and (..., K, M)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


@final
class Softmax(nn.Module):
    """Softmax over the keys: (..., N, N) scores to rows that sum to 1."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores.softmax(dim=-1)


@final
class Affine(nn.Module):
    """x (..., in) -> weight (out, in) x + bias (out,), if any. Not an nn.Linear, so that `quantize` leaves it in float.

    It stands where no activation is multiplied (biases of scores that an MLP computes from coordinates), and behind norms.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def keep_in_float(parent: nn.Module) -> None:
    """Replace every linear layer in `parent` by an `Affine` with its parameters, under its name."""
    swap(parent, nn.Linear, lambda linear: Affine(linear.weight, linear.bias))


def add_side_biases(qkv: Tensor, q_bias: Tensor | None, v_bias: Tensor | None) -> Tensor:
    """Add to queries, keys and values (..., 3 C) the two biases (C,) that some of timm's attentions keep beside the layer `qkv`.

    timm passes the layer by and multiplies with its weight. Added to what the layer gives, they leave it a site.
    """
    if q_bias is None or v_bias is None:
        return qkv
    return qkv + torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])


@final
class ClassRow(nn.Module):
    """The class token's row of attention, computed beside a fused kernel, and only while the module has hooks."""

    def forward(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """Scaled queries and keys (B, heads, N, head_dim) -> (B, heads, N), each row sums to 1."""
        scores = (q[..., :1, :] @ k.transpose(-2, -1)).squeeze(-2)
        return (scores if bias is None else scores + bias[..., 0, :]).softmax(-1)


class Product(NamedTuple):
    """What is known of a product of activations in an opened attention."""

    reads_softmax: bool  # its left operand is softmax's output, with rows that sum to one; no operand is where it is False
    num_heads: int | None = None  # operands are (B, heads, N, K) and (B, heads, K, M); None: of another form
    key_dim: int | None = None  # K of q @ k, where it is known


class OpenedSite(nn.Module):
    """The base of every opened attention: timm's submodules under timm's names, and these four beside them.

    A subclass takes over timm's submodules and calls `add_places` last, so that sites are listed in timm's order.
    """

    num_heads: int
    key_dim: int  # width of the queries and keys of one head
    scale: float  # of the scores
    attn_drop: nn.Dropout
    qk: nn.Module  # (B, heads, queries, key_dim) and (B, heads, key_dim, keys) -> scores
    softmax: nn.Module
    av: nn.Module  # (B, heads, queries, keys) and (B, heads, keys, width) -> (B, heads, queries, width)
    class_row: nn.Module

    @property
    def products(self) -> dict[str, Product]:
        """The products by name."""
        return {"qk": Product(False, self.num_heads, self.key_dim), "av": Product(True, self.num_heads)}

    def add_places(self) -> None:
        """Register the submodules that compute attention; they have no parameters."""
        self.qk = MatMul()
        self.softmax = Softmax()
        self.av = MatMul()
        self.class_row = ClassRow()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, gain: Tensor | None = None) -> Tensor:
        """Return `softmax(gain * (q * scale @ k^T) + bias) @ v`: by `qk`, `softmax` and `av`, or fused if they are untouched.

        Args:
            q, k, v: (B, heads, N, head_dim); there may be fewer queries than keys, and the width of values may be another.
            bias: added to the scores, broadcastable to (B, heads, queries, keys); None for none.
            gain: (heads, 1, 1), multiplies the product: queries of all heads then have one range. None for none.
        """
        scaled = q if gain is None else q * gain
        if has_hooks(self.class_row):
            self.class_row(scaled * self.scale, k, bias)
        if untouched(self.qk, self.softmax, self.av):
            dropout = self.attn_drop.p if self.training else 0.0
            return F.scaled_dot_product_attention(scaled, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        scores = self.qk(q * self.scale, k.transpose(-2, -1))
        if gain is not None:
            scores = scores * gain
        if bias is not None:
            scores = scores + bias
        return self.av(self.attn_drop(self.softmax(scores)), v)


def untouched(*modules: nn.Module) -> bool:
    """Return whether these are plain `MatMul` and `Softmax` modules without hooks: a fused kernel computes the same."""
    return all(type(module) in (MatMul, Softmax) and not has_hooks(module) for module in modules)


def has_hooks(module: nn.Module) -> bool:
    """Return whether the module has forward or backward hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def swap(model: nn.Module, kind: type[nn.Module], opened: Callable[[Any], nn.Module]) -> None:
    """Replace each submodule that is exactly of `kind` (a subclass may compute otherwise) by `opened(submodule)`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, opened(child).train(child.training))
