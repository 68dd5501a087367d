"""Attention maps of the quantized student beside those of its teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.models import attention_sites, record

LEAST = 1e-8  # of a probability inside a logarithm: logarithmic softmax rounds small ones to zero
QUANTIZED = "left_quantizer"  # of the product that reads softmax


@dataclass(frozen=True)
class AttentionError:
    """How the maps of one attention differ, all sites quantized.

    Attributes:
        site: "blocks.0.attn".
        kl: divergence from the teacher's to the student's rows in nats, mean over images, heads and queries; rows of the student
            are scaled to a sum of one, as its products with the values are.
        kl_by_head: the same for each head.
        entropy: of the teacher's rows in nats: a divergence is large or small beside it.
    """

    site: str
    kl: float
    kl_by_head: list[float]
    entropy: float


@torch.no_grad()
def attention_errors(passes: HeldOutPasses, teacher: nn.Module, num_images: int = 8) -> list[AttentionError]:
    """Compare the maps that the products with the values read, site by site; none where no attention is known.

    Args:
        passes: over the held-out images, whose first `num_images` pass at once.
        teacher: the float model that the student was made from.
        num_images: maps are large: images x heads x tokens² x 4 bytes for each attention.
    """
    student, images = passes.switches.student, passes.images[:num_images].to(passes.device)
    passes.switches.only(passes.switches.parts)
    sites = [site.name for site in attention_sites(teacher)]
    with record(teacher, [f"{name}.softmax" for name in sites]) as wanted:
        teacher(images)
    with record(student, [f"{name}.av.{QUANTIZED}" for name in sites]) as got:
        student(images)
    return [_compare(name, wanted[f"{name}.softmax"], got[f"{name}.av.{QUANTIZED}"]) for name in sites]


def _compare(site: str, target: Tensor, rows: Tensor) -> AttentionError:
    """Compare maps (B, heads, queries, keys)."""
    target, rows = target.double(), rows.double()
    rows = rows / rows.sum(-1, keepdim=True).clamp(min=LEAST)
    logs = target.clamp(min=LEAST).log()
    divergence = (target * (logs - rows.clamp(min=LEAST).log())).sum(-1)  # (B, heads, queries)
    by_head = divergence.mean((0, 2))
    return AttentionError(site, by_head.mean().item(), by_head.tolist(), -(target * logs).sum(-1).mean().item())
