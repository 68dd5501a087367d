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


def untouched(*modules: nn.Module) -> bool:
    """Return whether these are plain `MatMul` and `Softmax` modules without hooks: a fused kernel does the same."""
    return all(
        type(module) in (MatMul, Softmax)
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        for module in modules
    )


def attend(site: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return `softmax(q * scale @ k^T + bias) @ v`: by the site's `qk`, `softmax`, `av`, fused if they are untouched.

    Args:
        site: an opened attention; also holds `scale` and `attn_drop`.
        q, k, v: (B, heads, N, head_dim).
        bias: added to the scores, broadcastable to (B, heads, N, N); None for none.
    """
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
