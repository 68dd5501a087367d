"""The two products and the softmax of an attention as submodules: places to listen at, to quantize, to name by glob."""

from collections.abc import Callable
from typing import Any, final

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
class ClassRow(nn.Module):
    """The class token's row of attention, computed beside a fused kernel, and only where somebody listens."""

    def forward(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """Scaled queries and keys (B, heads, N, head_dim) -> (B, heads, N), each row sums to 1."""
        scores = (q[..., :1, :] @ k.transpose(-2, -1)).squeeze(-2)
        return (scores if bias is None else scores + bias[..., 0, :]).softmax(-1)


def untouched(*modules: nn.Module) -> bool:
    """Return whether these are plain `MatMul` and `Softmax` modules without hooks: a fused kernel does the same."""
    return all(type(module) in (MatMul, Softmax) and not listened_to(module) for module in modules)


def listened_to(module: nn.Module) -> bool:
    """Return whether the module has hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def attend(site: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return `softmax(q * scale @ k^T + bias) @ v`: by the site's `qk`, `softmax`, `av`, fused if they are untouched.

    Args:
        site: an opened attention; also holds `scale`, `attn_drop` and `class_row`.
        q, k, v: (B, heads, N, head_dim); there may be fewer queries than keys, and the width of values may be another.
        bias: added to the scores, broadcastable to (B, heads, queries, keys); None for none.
    """
    if listened_to(site.class_row):
        site.class_row(q * site.scale, k, bias)
    if untouched(site.qk, site.softmax, site.av):
        dropout = site.attn_drop.p if site.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=site.scale)
    scores = site.qk(q * site.scale, k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    return site.av(site.attn_drop(site.softmax(scores)), v)


def swap(model: nn.Module, kind: type[nn.Module], opened: Callable[[nn.Module], nn.Module]) -> None:
    """Replace each submodule that is exactly of `kind` (a subclass may compute otherwise) by `opened(submodule)`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, opened(child).train(child.training))
