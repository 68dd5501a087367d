"""The grid of synthetic images, with the class that the teacher sees in each."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from vitdfq.common.files import written_whole

CELL, MARGIN, CAPTION = 112, 6, 14  # pixels


@torch.inference_mode()
def save_grid(teacher: nn.Module, images: Tensor, path: Path, columns: int = 8, most: int = 64) -> None:
    """Write the first images (N, 3, H, W), de-normalised, as one PNG; under each the teacher's class and its confidence."""
    shown = images[:most]
    device = next(teacher.parameters()).device
    confidence, classes = teacher(shown.to(device)).softmax(-1).max(-1)
    names = teacher.pretrained_cfg.get("label_names") or {}
    rows = -(-len(shown) // columns)
    step = CELL + MARGIN
    sheet = Image.new("RGB", (MARGIN + columns * step, MARGIN + rows * (step + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pixels in enumerate(pixels_of(teacher, shown)):
        left, top = MARGIN + (index % columns) * step, MARGIN + (index // columns) * (step + CAPTION)
        sheet.paste(Image.fromarray(pixels.numpy()).resize((CELL, CELL), Image.Resampling.BICUBIC), (left, top))
        label = int(classes[index])
        name = names[label] if len(names) > label else f"class {label}"
        draw.text((left, top + CELL), f"{name[:12]} {confidence[index]:.2f}", fill="black")
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def pixels_of(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return images (N, 3, H, W), normalised for the teacher, as bytes to look at (N, H, W, 3), on the CPU."""
    config = resolve_model_data_config(teacher)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return ((images.cpu() * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
