"""How many multiplications a model takes for one image, and how many of them `quantize` reaches."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.any_timm import is_watched
from vitdfq.models.attention import MatMul
from vitdfq.models.families import image_size
from vitdfq.models.record import hooked
from vitdfq.models.sites import is_layer
from vitdfq.models.storage import without_storage
from vitdfq.models.watching.counting import multiplications_of
from vitdfq.models.watching.watch import watch


@dataclass(frozen=True)
class InFloat:
    """A module whose own forward multiplies activations, and which is no site: `quantize` leaves it in float."""

    name: str  # "stages.0.conv"; "" is the model itself
    kind: str  # "StdConv2d"
    count: int  # multiplications for one image


@dataclass(frozen=True)
class Multiplications:
    """The multiplications of activations by weights, and by each other, of one pass for one image (additions come with them)."""

    total: int
    in_sites: int  # of those, what `quantize` reaches
    in_float: tuple[InFloat, ...]  # the rest by module, largest first

    @property
    def share(self) -> float:
        """The share, 0 to 1, that `quantize` reaches."""
        return self.in_sites / self.total if self.total else 1.0

    def line(self) -> str:
        """Return "97.2 % of the multiplications can be quantized; in float: stem.conv (Conv2dSame) 2.8 %"."""
        text = f"{_percent(self.share)} of the multiplications can be quantized"
        if not self.in_float:
            return text
        shown = [f"{part.name or 'the model'} ({part.kind}) {_percent(part.count / self.total)}" for part in self.in_float[:3]]
        more = len(self.in_float) - len(shown)
        return f"{text}; in float: {', '.join(shown)}{f' and {more} smaller' if more else ''}"


def multiplications(model: nn.Module) -> Multiplications:
    """Count the multiplications of one pass for one image of `image_size`, on the meta device: nothing is computed.

    Counted are products of which an operand depends on the image. A fused attention counts as its two products.

    Args:
        model: an opened float model, of any family.
    """
    in_sites, rest = 0, Counter[tuple[str, str]]()
    for name, kind, count, is_site in _counts(model):
        if is_site:
            in_sites += count
        elif count:
            rest[name, kind] += count
    in_float = tuple(InFloat(name, kind, count) for (name, kind), count in rest.most_common())
    return Multiplications(in_sites + rest.total(), in_sites, in_float)


def multiplications_by_site(model: nn.Module) -> tuple[dict[str, int], int]:
    """Return site -> its share of `multiplications`, and how many are in no site."""
    counts = _counts(model)
    by_site = Counter[str]()
    for name, _, count, is_site in counts:
        if is_site:
            by_site[name] += count
    return dict(by_site), sum(count for _, _, count, is_site in counts if not is_site)


def _counts(model: nn.Module) -> list[tuple[str, str, int, bool]]:
    """(name, class, multiplications, whether it is a site) of every module whose own forward runs in one pass."""
    ghost = without_storage(model).eval().requires_grad_(False)
    products = [part for part in ghost.modules() if isinstance(part, MatMul)]
    images = torch.zeros(1, 3, *image_size(model), dtype=next(model.parameters()).dtype, device="meta", requires_grad=True)
    with hooked(part.register_forward_hook(_not_fused) for part in products):
        top = watch(ghost, images)
    counts = []
    for module in top.walk():
        is_site = isinstance(module.target, MatMul) or (module.name is not None and is_layer(module.target))
        counts.append((module.name or "", type(module.target).__name__, sum(map(multiplications_of, module.inner)), is_site))
    return counts


def how_opened(model: Any) -> str | None:
    """Return how a model that was opened by watching was understood, in one line; None for other models."""
    if not is_watched(model):
        return None
    watched, products = model.watched, sum(isinstance(part, MatMul) for part in model.modules())
    parts = [f"opened by watching: {len(watched.opened)} attentions, {products} products", multiplications(model).line()]
    parts += [f"{name or 'the model'} stays in float, because {why}" for name, why in watched.in_float.items()]
    if not watched.segments:
        parts.append("no chain of units: calibration takes the model as one")
    if not watched.sites:
        parts.append("losses on attention left out: no maps of patches")
    elif len(watched.sites) < len(watched.opened):
        parts.append(f"losses on attention see {len(watched.sites)} of {len(watched.opened)} attentions")
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _not_fused(module: nn.Module, args: Any, output: Tensor) -> None:
    """A hook: an attention with hooks runs its products one by one."""
