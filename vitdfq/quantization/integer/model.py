"""The integer student: the student's model with integer sites, which runs a few images at a time."""

from typing import Any

import torch
from torch import Tensor, nn

# The activations of so many pixels stay in a processor's cache: with 32 images of 224 pixels at once a pixel takes twice as long.
VALUES_AT_ONCE = {"cpu": 2**19}


class IntegerStudent(nn.Module):
    """Runs `model` on parts of a batch. Has `vitdfq`, and the attributes of a timm model that `evaluate` reads."""

    def __init__(self, model: nn.Module, record: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.vitdfq = model, record
        for name in ("num_classes", "pretrained_cfg"):
            setattr(self, name, getattr(model, name))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes)."""
        if x.device.type not in VALUES_AT_ONCE or len(x) == 0:
            return self.model(x)
        images = max(1, VALUES_AT_ONCE[x.device.type] // x[0].numel())
        return torch.cat([self.model(part) for part in x.split(images)])
