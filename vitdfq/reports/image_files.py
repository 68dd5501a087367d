"""Images as PNG files, one each, and inside a page."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from vitdfq.common.files import written_whole
from vitdfq.reports.charts import data_uri
from vitdfq.reports.image_grid import to_pixels

LONGEST_NAME = 40  # characters of a class name in a file name
JPEG_QUALITY = 88


def save_images(teacher: nn.Module, images: Tensor, classes: Sequence[int | None], folder: Path) -> list[Path]:
    """Write images (N, 3, H, W) to `folder` as INDEX_CLASS-NAME.png, and return the paths.

    Args:
        teacher: undoes the normalization, and names the classes if it knows their names.
        images: normalized for the teacher.
        classes: the target class of each image; None: it has none, and its name is INDEX.png.
        folder: is created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(len(images) - 1)))
    paths = []
    for index, (pixels, number) in enumerate(zip(to_pixels(teacher, images), classes, strict=True)):
        path = folder / f"{index:0{digits}}{_class_part(teacher, number)}.png"
        with written_whole(path) as temporary:
            Image.fromarray(pixels.numpy()).save(temporary, format="PNG")
        paths.append(path)
    return paths


def jpeg_uri(image: Image.Image, size: tuple[int, int]) -> str:
    """Return an RGB image, made no larger than `size`, width and height, as a link that holds it."""
    buffer = io.BytesIO()
    image.thumbnail(size, Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return data_uri("image/jpeg", buffer.getvalue())


def _class_part(teacher: Any, number: int | None) -> str:
    """ "_7-sneaker" for class 7, "_7" where the teacher names no classes, "" for no class."""
    if number is None:
        return ""
    names = teacher.pretrained_cfg.get("label_names") or ()
    name = re.sub(r"\W+", "-", str(names[number]).lower()).strip("-")[:LONGEST_NAME] if number < len(names) else ""
    return f"_{number}" + (f"-{name}" if name else "")
