"""What the synthetic images were made for, and what the teacher sees in them, as a JSON file beside their grid.

With the normalization that the file holds, pictures can be made of images.safetensors without the teacher.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn

from vitdfq.common.files import write_text
from vitdfq.data.class_names import Classes
from vitdfq.models import gives
from vitdfq.synthesis.synthesize import ImageTarget

FILE = "reports/images.json"
MAX_IMAGES = 64  # as the grid
BATCH_SIZE = 32
IMAGENET_CLASSES, IMAGENET_TAG = 1000, "in1k"


def save_image_targets(teacher: nn.Module, images: Tensor, targets: Sequence[ImageTarget | None], path: Path) -> None:
    """Write the target of each of the first images (N, 3, H, W), the teacher's class, and its confidence in both.

    Content: "mean" and "std" of the normalization; "images": a mapping each, of "class" and "confidence" where the teacher gives
    classes, and of "target", "labels" (see `ImageTarget`) and "target_confidence" where there is a target; "names" of these
    classes by number, where they are known.
    """
    images, config = images[:MAX_IMAGES], resolve_model_data_config(teacher)
    rows: list[dict[str, Any]] = [{} for _ in images]
    if gives(teacher) == "classes":
        probabilities = _probabilities(teacher, images)
        for row, target, values in zip(rows, targets, probabilities, strict=False):
            row |= {"class": int(values.argmax()), "confidence": round(float(values.max()), 4)}
            if target is not None:
                confidence = round(float(values[target.main_class]), 4)
                row |= {"target": target.main_class, "labels": target.labels, "target_confidence": confidence}
    content = {key: list(config[key]) for key in ("mean", "std")} | {"names": _names(teacher, rows), "images": rows}
    write_text(path, json.dumps(content) + "\n")


@torch.inference_mode()
def _probabilities(teacher: nn.Module, images: Tensor) -> Tensor:
    """(N, C), on the CPU."""
    device = next(teacher.parameters()).device
    return torch.cat([teacher(batch.to(device)).float().softmax(-1).cpu() for batch in images.split(BATCH_SIZE)])


def _names(teacher: Any, rows: list[dict[str, Any]]) -> dict[str, str]:
    """The names of the classes in these rows, by number."""
    name_of = _name_of(teacher)
    numbers = {row[key] for row in rows for key in ("class", "target") if key in row}
    return {str(number): name_of(number) for number in sorted(numbers)} if name_of else {}


def _name_of(teacher: Any) -> Callable[[int], str] | None:
    """What names a class: the model's own names, or ImageNet's if timm says that it was trained on that."""
    classes = Classes.of(teacher)
    if classes.names is not None:
        return classes.names.__getitem__
    if classes.num == IMAGENET_CLASSES and IMAGENET_TAG in (teacher.pretrained_cfg.get("tag") or ""):
        return lambda number: ImageNetInfo().index_to_description(number).partition(",")[0]
    return None
