"""Attention on the patch grid: what the last block attends to, and the priors that synthesis drew for it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models import attention_sites, record
from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.attention_rows import attention_rows, rows_name
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.targets.views import draw_views
from vitdfq.synthesis.without_classes import losses_for

PRIOR = "attention_prior"


@torch.no_grad()
def attention_maps(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return (B, num_heads, h, w), on the CPU: the last block's attention to the patches of images (B, 3, H, W)."""
    site = attention_sites(teacher)[-1]
    with record(teacher, [rows_name(site)]) as recorded:
        teacher(images.to(next(teacher.parameters()).device))
    return _on_patches(attention_rows(recorded, site).cpu(), site)


def attention_priors(teacher: nn.Module, count: int, section: Mapping[str, Any]) -> Tensor | None:
    """Return (count, num_heads, h, w): the priors of images 0 to count - 1 of `synthesize(teacher, **section)`.

    None if the method has no attention priors, takes no step, or mixes in images of other presets.
    """
    method = SynthesisOptions(**section).resolved()
    facts = TeacherFacts.of(teacher)
    terms = losses_for(method, facts)
    if method.steps == 0 or method.mix or PRIOR not in [term.name for term in terms]:
        return None
    site = facts.sites[-1]
    views = [draw_views(index, section.get("seed", 0), method, terms, facts)[0] for index in range(count)]
    return _on_patches(torch.stack([view.drawn[PRIOR][site.name] for view in views]), site)


def _on_patches(rows: Tensor, site: AttentionSite) -> Tensor:
    """(B, num_windows, H, N) -> (B, H, h, w). Windows form a square, as they do in a square image."""
    patches = rows[..., site.num_prefix_tokens :].unflatten(-1, site.grid)  # (B, windows, H, h, w)
    side = math.isqrt(site.num_windows)
    across = side if side**2 == site.num_windows else site.num_windows
    lines = [torch.cat(line.unbind(1), -1) for line in patches.split(across, dim=1)]
    return torch.cat(lines, -2)
