"""What images a model reads: their size and the range of their normalised pixels."""

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from vitdfq.models.families import family_of


def image_range(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the normalised values of a black and of a white pixel, each (1, 3, 1, 1), on the model's device.

    Mean and standard deviation are the model's own (ViT's are often 0.5, DeiT's and Swin's ImageNet's).
    """
    config = resolve_model_data_config(model)
    device = next(model.parameters()).device
    mean = torch.tensor(config["mean"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    std = torch.tensor(config["std"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    return (0 - mean) / std, (1 - mean) / std


def image_size(model: nn.Module) -> tuple[int, int]:
    """Return (height, width) of the images the model was built for, whatever size its weights were trained at."""
    return family_of(model).image_size(model)
