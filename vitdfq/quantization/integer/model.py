"""The integer student: the student's own model with integer sites, given a few images at a time."""

from typing import Any

import torch
from torch import Tensor, nn

# The activations of so many pixels stay in a processor's cache: 32 images of 224 pixels at once take twice the time a pixel.
VALUES_AT_ONCE = {"cpu": 2**19}


class IntegerStudent(nn.Module):
    """`model`, given images in parts. Carries `vitdfq` and what `evaluate` asks a timm model for."""

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
