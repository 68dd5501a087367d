"""Facts of a model by watching: maps of attention over patches, norms that linear layers read, GELU's readers."""

import math
from collections.abc import Iterator
from typing import Any

from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.family import AttentionSite, MlpSite, NormReaders
from vitdfq.models.norms import RMS_NORMS
from vitdfq.models.sites import is_layer
from vitdfq.models.watching.watch import Call, tensors_in

TOKEN_NORMS = (nn.LayerNorm, LayerNorm, *RMS_NORMS)  # exactly: a subclass may norm another dimension


def functions(top: Call) -> Iterator[tuple[Call, Call]]:
    """Yield each call of a function with the call of the module that made it."""
    for module in top.walk():
        for call in module.inner:
            if call.name is None:
                yield module, call


def norm_readers(top: Call) -> list[NormReaders]:
    """Return the norms of tokens whose output goes into linear layers as it is, and nowhere else; each is called once."""
    modules = [call for call in top.walk() if call.name]
    names = [call.name for call in modules]
    norms = [call for call in modules if type(call.target) in TOKEN_NORMS and names.count(call.name) == 1]
    read: dict[int, list[tuple[Call, Call]]] = {}
    for module, call in functions(top):
        for tensor in {id(part): part for part in tensors_in((call.args, call.kwargs))}.values():
            read.setdefault(id(tensor), []).append((module, call))
    given = {id(tensor) for tensor in tensors_in(top.output)}
    found = []
    for norm in norms:
        readers = read.get(id(norm.output), [])
        linears = [module.name for module, call in readers if call.target is F.linear and is_linear(module)]
        is_alone = id(norm.output) not in given and len(linears) == len(readers) == len(set(linears)) > 0
        if is_alone and getattr(norm.target, "weight", None) is not None and all(names.count(name) == 1 for name in linears):
            found.append(NormReaders(norm.name or "", tuple(name or "" for name in linears), shifts=True))
    return found


def is_linear(module: Call) -> bool:
    """Return whether a call is one of a plain linear layer."""
    return isinstance(module.target, nn.Linear) and is_layer(module.target)


def mlp_sites(top: Call) -> list[MlpSite]:
    """Return the linear layers that read what a GELU writes."""
    gelus: list[tuple[Call, Call]] = [(module, call) for module, call in functions(top) if call.target is F.gelu]
    found = []
    for module, call in functions(top):
        if call.target is F.linear and is_linear(module):
            source = next((gelu for gelu in gelus if is_same_tensor(gelu[1].output, call.args[0])), None)
            if source is not None and source[0].name and module.name:
                found.append(MlpSite(source[0].name, module.name))
    return list(dict.fromkeys(found))


def is_same_tensor(a: Tensor, b: Any) -> bool:
    """Return whether two tensors are the same numbers in the same order."""
    return (
        isinstance(b, Tensor) and a.shape == b.shape and a.untyped_storage() == b.untyped_storage() and a.stride() == b.stride()
    )


def attention_sites(model: Any, top: Call, batch: int, size: tuple[int, int], owners: list[str]) -> list[AttentionSite]:
    """Return the opened attentions whose maps are those of a grid of patches, all tokens to all.

    The module reads (B * windows, N, C) or (B * windows, H, W, C), and its maps are (B * windows, heads, N, N), so that rows are
    tokens and no channels. Where a model has maps of several kinds, or of another kind, losses on attention do without them.
    """
    calls: dict[str, list[Call]] = {}
    for call in top.walk():
        if call.name in owners:
            calls.setdefault(call.name or "", []).append(call)
    is_token = getattr(model, "global_pool", None) == "token"
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    found = []
    for depth, name in enumerate(calls):
        shape = map_shape(calls[name], batch)
        site = shape and _site(name, depth, shape, prefix, size, class_row=is_token)
        if site:
            found.append(site)
    return found


def map_shape(calls: list[Call], batch: int) -> tuple[int, int, int] | None:
    """Return (windows, heads, tokens) of the maps of an attention that is called once; None where they are not known."""
    scores = [call for call in calls[0].inner if call.target is F.scaled_dot_product_attention]
    x = calls[0].args[0] if calls[0].args else None
    if len(calls) != 1 or len(scores) != 1 or not isinstance(x, Tensor) or x.ndim not in (3, 4):
        return None
    query, key = scores[0].args[:2]
    if query.ndim != 4 or query.shape != key.shape or query.shape[0] != x.shape[0] or x.shape[0] % batch:
        return None
    tokens = x.shape[1:-1].numel()
    is_tokens = query.shape[2] == tokens != query.shape[3]
    return (x.shape[0] // batch, query.shape[1], tokens) if is_tokens else None


def _site(
    name: str, depth: int, shape: tuple[int, int, int], prefix: int, size: tuple[int, int], *, class_row: bool
) -> AttentionSite | None:
    """The site of maps (windows, heads, tokens); None where no grid of patches has so many tokens."""
    windows, heads, tokens = shape
    patches = tokens - prefix
    ratio = size[0] / size[1] if windows == 1 else 1.0
    rows = round(math.sqrt(patches * ratio)) if patches > 0 else 0
    if not rows or patches % rows or abs(rows / (patches // rows) - ratio) > 1e-6 or (windows > 1 and prefix):
        return None
    return AttentionSite(name, depth, heads, (rows, patches // rows), prefix, windows, class_row and prefix > 0)
