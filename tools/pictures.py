"""Draw the pictures of the documentation: eight synthetic images in a sheet, each with the teacher's class and its confidence.

`python tools/pictures.py readme local-dir:PATH` draws the one of the README, with a model of photographs that you have;
`python tools/pictures.py methods` draws one for each preset, with `zoo:deit`. Both write to docs/images/.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from timm.data import ImageNetInfo
from torch import Tensor

import vitdfq
from vitdfq.reports.image_grid import to_pixels
from vitdfq.synthesis import METHODS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NUM_IMAGES, STEPS = 8, 100
MARGIN, FONT_SIZE, CAPTION = 12, 14, 22  # pixels


def draw(teacher: Any, images: Tensor, file: Path, *, columns: int, cell: int, quality: int | None) -> None:
    """Write images (N, 3, H, W) as one WebP file.

    Args:
        teacher: undoes the normalization and names the classes.
        columns: images in a row.
        cell: pixels of a side of an image.
        quality: of the compression, up to 100; None: lossless.
    """
    font, texts = ImageFont.load_default(FONT_SIZE), captions(teacher, images)
    width, height, rows = cell + MARGIN, cell + CAPTION + MARGIN, -(-len(images) // columns)
    sheet = Image.new("RGB", (MARGIN + columns * width, MARGIN + rows * height), "white")
    for index, pixels in enumerate(to_pixels(teacher, images)):
        left, top = MARGIN + index % columns * width, MARGIN + index // columns * height
        # pixels of small images stay visible: they are what the model receives
        resampling = Image.Resampling.NEAREST if len(pixels) < cell / 3 else Image.Resampling.LANCZOS
        sheet.paste(Image.fromarray(pixels.numpy()).resize((cell, cell), resampling), (left, top))
        ImageDraw.Draw(sheet).text((left, top + cell + 3), texts[index], fill="black", font=font)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, format="WEBP", lossless=quality is None, quality=quality or 100, method=6)


@torch.inference_mode()
def captions(teacher: Any, images: Tensor) -> list[str]:
    """The teacher's class of each image, the first of its names, and its confidence."""
    confidence, classes = teacher(images).softmax(-1).max(-1)
    names = [teacher.pretrained_cfg["label_names"][int(label)] for label in classes]
    words = ImageNetInfo()
    names = [words.label_name_to_description(name).split(",")[0] if name.startswith("n0") else name for name in names]
    return [f"{name}  {share:.2f}" for name, share in zip(names, confidence, strict=True)]


def readme(model: str) -> None:
    """The first eight images of the preset `vitdfq`."""
    teacher = vitdfq.load_teacher(model)
    images = vitdfq.synthesize(teacher, method="vitdfq", num_images=NUM_IMAGES, seed=0)
    draw(teacher, images, IMAGES / "scenes.webp", columns=4, cell=196, quality=85)


def methods() -> None:
    """The first eight images of every preset, after as many steps as `recipes/compare_zoo.yaml` takes."""
    teacher = vitdfq.load_teacher("zoo:deit")
    for name, method in METHODS.items():
        steps = {"steps": STEPS} if method.steps else {}
        images = vitdfq.synthesize(teacher, method=name, num_images=NUM_IMAGES, seed=0, **steps)
        draw(teacher, images, IMAGES / "methods" / f"{name}.webp", columns=NUM_IMAGES, cell=112, quality=None)


if __name__ == "__main__":
    {"readme": readme, "methods": methods}[sys.argv[1]](*sys.argv[2:])
