"""Give a prepared model the basis of the model it was made from, so that timm can hold its weights; in place.

Rotations of heads stay: they are weights like others. A norm's affine and a LayerScale that were folded stay folded, and so they
are ones and zeros in timm's model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from vitdfq.models import family_of
from vitdfq.preparation.linear import rotate_input
from vitdfq.preparation.rotate import ROTATABLE, SEED


@torch.no_grad()
def undo(model: nn.Module, steps: Sequence[str]) -> None:
    """Undo what `prepare` did in `steps`, last first; the model may hold other weights by now.

    The function stays what it was, but for one thing: a ViT's rotated stream is normalised by RMSNorm, timm's by LayerNorm, which
    takes no notice of the mean over channels. A float model has none there; quantized weights write a little.
    """
    for name in reversed(steps):
        UNDO.get(name, _nothing)(model)


def _residual(model: Any) -> None:
    ROTATABLE[family_of(model).name].unrotate_residual(model, SEED)


def _mlp(model: Any) -> None:
    for block in ROTATABLE[family_of(model).name].blocks(model):
        norm, transform = block.mlp.norm
        rotate_input(block.mlp.fc2, transform.matrix().T)
        block.mlp.norm = norm


def _nothing(model: nn.Module) -> None:
    pass


UNDO: dict[str, Callable[[Any], None]] = {"rotate_residual": _residual, "rotate_mlp": _mlp}
