"""The grid of synthetic images, each with the class that the teacher predicts for it, if it gives classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from vitdfq.common.files import written_whole
from vitdfq.models import gives

CELL, MARGIN, CAPTION = 112, 6, 14  # pixels
COLUMNS, MAX_IMAGES = 8, 64
MAX_NAME = 12  # characters of a class name


@torch.inference_mode()
def save_grid(teacher: nn.Module, images: Tensor, path: Path) -> None:
    """Write the first images of (N, 3, H, W) as one PNG, each with the teacher's class and its confidence, if there are any."""
    images = images[:MAX_IMAGES]
    captions = _captions(teacher, images) if gives(teacher) == "classes" else [""] * len(images)
    rows = -(-len(images) // COLUMNS)
    step = CELL + MARGIN
    sheet = Image.new("RGB", (MARGIN + COLUMNS * step, MARGIN + rows * (step + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pixels in enumerate(to_pixels(teacher, images)):
        left, top = MARGIN + (index % COLUMNS) * step, MARGIN + (index // COLUMNS) * (step + CAPTION)
        sheet.paste(Image.fromarray(pixels.numpy()).resize((CELL, CELL), Image.Resampling.BICUBIC), (left, top))
        draw.text((left, top + CELL), captions[index], fill="black")
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def _captions(teacher: Any, images: Tensor) -> list[str]:
    """The teacher's class of each image, and its confidence."""
    device = next(teacher.parameters()).device
    confidence, classes = teacher(images.to(device)).softmax(-1).max(-1)
    names = teacher.pretrained_cfg.get("label_names") or {}
    labels = [int(label) for label in classes]
    texts = [names[label] if len(names) > label else f"class {label}" for label in labels]
    return [f"{text[:MAX_NAME]} {share:.2f}" for text, share in zip(texts, confidence, strict=True)]


def to_pixels(teacher: nn.Module, images: Tensor) -> Tensor:
    """Undo the teacher's normalization: float images (N, 3, H, W) to uint8 pixels (N, H, W, 3), on the CPU."""
    config = resolve_model_data_config(teacher)
    return pixels_of(images, config["mean"], config["std"])


def pixels_of(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo a normalization by channel: float images (N, 3, H, W) to uint8 pixels (N, H, W, 3), on the CPU."""
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return ((images.cpu() * scale + shift).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
