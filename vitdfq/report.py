"""What a person looks at: the grid of synthetic images, the error of each unit, and the table of results."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from rich.table import Table
from rich.text import Text
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from vitdfq import tables
from vitdfq.errors import GateError
from vitdfq.files import written_whole
from vitdfq.models import units

CELL, MARGIN, CAPTION = 112, 6, 14  # pixels
AT_ONCE = 32  # images in one forward pass


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


@torch.inference_mode()
def unit_sqnr(student: nn.Module, prepared: nn.Module, images: Tensor) -> dict[str, float]:
    """Signal to quantization noise (dB) after each unit, both models fed the same images (N, 3, H, W): which unit hurts.

    Batches go through the whole chain one by one, so that memory holds one of them however many images there are.
    """
    device = next(student.parameters()).device
    pairs = list(zip(units(student), units(prepared), strict=True))
    signal, noise = torch.zeros(2, len(pairs), dtype=torch.float64)
    for part in images.split(AT_ONCE):
        quantized = real = part.to(device)
        for place, (unit, float_unit) in enumerate(pairs):
            quantized, real = unit.forward(quantized), float_unit.forward(real)
            signal[place] += real.square().sum().item()
            noise[place] += (quantized - real).square().sum().item()
    ratios = 10 * torch.log10(signal / noise.clamp(min=torch.finfo(torch.float32).tiny))
    return {unit.name: round(ratio, 2) for (unit, _), ratio in zip(pairs, ratios.tolist(), strict=True)}


@torch.inference_mode()
def check_alive(student: nn.Module, prepared: nn.Module, images: Tensor, min_agreement: float | None = None) -> None:
    """Look at a calibrated student on its own synthetic images (N, 3, H, W), before anything is made of it.

    Args:
        min_agreement: percent of the images on which the two must agree; None: a tenth of the way from chance to all of them.

    Raises:
        GateError: logits that are not finite, or too little agreement.
    """
    device = next(student.parameters()).device
    logits, target = (torch.cat([model(part.to(device)) for part in images.split(AT_ONCE)]) for model in (student, prepared))
    if not logits.isfinite().all():
        raise GateError("the student's logits on the synthetic images are not finite: its calibration failed")
    chance = 100 / logits.shape[1]
    least = chance + (100 - chance) / 10 if min_agreement is None else min_agreement
    agreement = 100 * (logits.argmax(1) == target.argmax(1)).float().mean().item()
    if agreement < least:
        raise GateError(
            f"the student agrees with its teacher on {agreement:.1f} % of the synthetic images, fewer than min_agreement "
            f"({least:.1f}): try more bits or other calibrate.steps, or set min_agreement: 0 to keep it all the same"
        )


def summary_table(metrics: dict[str, Any]) -> Table:
    """The table that ends a run: teacher, student, and a student of each baseline."""
    student, size = metrics["student"], metrics["size"]
    bits = f"W{student['weight_bits']}A{student['activation_bits']}"
    images = f"{metrics['teacher']['num_images']:,} images"
    table = Table(title=f"{metrics['teacher']['name']}: {bits} on {images}, seed {metrics['seed']}")
    table.add_column("calibrated on")
    for column in ("top-1 %", "top-5 %", "agreement %", "logits SQNR dB", "MB"):
        table.add_column(column, justify="right")

    def add(title: str, row: dict[str, Any], num_bytes: int) -> None:
        numbers = (row.get(key) for key in ("top1", "top5", "agreement", "logits_sqnr_db"))
        cells = ("" if number is None else f"{number:.2f}" for number in numbers)
        table.add_row(title, *cells, f"{num_bytes / 1e6:.2f}")

    add("(teacher, float32)", metrics["teacher"], size["float_bytes"])
    for name, row in [(metrics["synthesis"]["method"], student), *metrics["baselines"].items()]:
        add(f"{name} images", row, size["packed_bytes"])
    return table


def comparison_table(content: dict[str, Any]) -> Table:
    """The table of `vitdfq compare`, from what compare.json holds."""
    heads, *lines = tables.cells(content)
    table = Table(title=tables.title(content), caption=Text(tables.notes(content)))  # an error's brackets are no markup
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for line in lines:
        table.add_row(*line)
    return table
