"""What images a model reads: their size and the range of their normalised pixels."""

from typing import Any

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn


def image_range(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the normalised values of a black and of a white pixel, each (1, 3, 1, 1), on the model's device.

    Mean and standard deviation are the model's own (ViT's are often 0.5, DeiT's and Swin's ImageNet's).
    """
    config = resolve_model_data_config(model)
    device = next(model.parameters()).device
    mean = torch.tensor(config["mean"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    std = torch.tensor(config["std"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    return (0 - mean) / std, (1 - mean) / std


def image_size(model: Any) -> tuple[int, int]:
    """Return (height, width) of the images the model was built for, whatever size its weights were trained at."""
    height, width = model.patch_embed.img_size
    return height, width
