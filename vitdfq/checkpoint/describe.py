"""What `vitdfq info` shows of a checkpoint, from its files alone: no weight is read."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitdfq.checkpoint.config_json import CONFIG, read_config
from vitdfq.common import safetensors_io
from vitdfq.common.errors import InputError, one_line
from vitdfq.common.files import read_json
from vitdfq.models import build
from vitdfq.models.untrusted import fits_file
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import named_weighted_modules


def describe_folder(folder: Path, weights: str) -> dict[str, Any]:
    """Return plain values for people and machines; see `vitdfq.checkpoint.save_load.describe`."""
    config = read_config(folder)
    header, num_bytes = safetensors_io.read_header(folder / weights), (folder / weights).stat().st_size
    spec = config["vitdfq"]
    try:
        with torch.device("meta"):  # sites and bits are those of the model before it was prepared
            student = quantize(build(spec, most=fits_file(num_bytes)), **spec["quantize"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / CONFIG}: {one_line(error, most=None)}") from error
    metrics = _metrics(folder / "metrics.json")
    recipe = folder / "recipe.yaml"
    return {
        "model": spec["model"]["name"],
        "architecture": spec["model"]["architecture"],
        "classes": spec["model"]["num_classes"],
        "bits": spec["quantize"].get("bits", "w4a4"),
        "layers": _layers(student),
        "packed layers": sum(name.endswith(".weight_packed") for name in header),
        "prepared by": spec.get("prepare", {}).get("steps", []),
        "bytes": num_bytes,
        "float bytes": 4 * sum(part.numel() for part in student.parameters()),
        "format": config["quantization_config"]["version"],
        "written by": f"vitdfq {config['quantization_config'].get('library_version')}",
        "top1": metrics["student"].get("top1"),
        "teacher top1": metrics["teacher"].get("top1"),
        "images": metrics["student"].get("num_images"),
        "recipe": metrics.get("recipe"),
        "reproduce": f"vitdfq run {recipe}" if recipe.is_file() else None,
    }


def described(found: dict[str, Any]) -> str:
    """What `describe_folder` returned, as lines for people; what is not known is left out."""
    lines = []
    for key, value in found.items():
        if key == "layers":
            lines += [
                f"{kind:17} {row['layers']:3} x  weights {row['weight bits']}, inputs {row['input bits']} bits"
                for kind, row in value.items()
            ]
        elif value not in (None, []):
            lines.append(f"{key:17} {', '.join(value) if isinstance(value, list) else value}")
    return "\n".join(lines)


def _layers(student: nn.Module) -> dict[str, dict[str, Any]]:
    """Kind of layer ("attn.qkv", "patch_embed.proj") -> how many, and bits of weights and inputs: "4", or "6, 4" if they vary."""
    kinds: dict[str, list[tuple[Any, Any]]] = {}
    for name, part in named_weighted_modules(student):
        bits = [getattr(quantizer, "bits", "float") for quantizer in (part.weight_quantizer, part.input_quantizer)]
        kinds.setdefault(_kind(name), []).append((bits[0], bits[1]))
    return {
        kind: {
            "layers": len(found),
            "weight bits": ", ".join(str(bits) for bits in Counter(weight for weight, _ in found)),
            "input bits": ", ".join(str(bits) for bits in Counter(inputs for _, inputs in found)),
        }
        for kind, found in kinds.items()
    }


def _kind(name: str) -> str:
    """A layer's name without what says where in the stack it stands: "blocks.3.attn.qkv" is an "attn.qkv"."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts) or name


def _metrics(path: Path) -> dict[str, Any]:
    """metrics.json with the sections student and teacher, which are empty if there is none.

    Raises:
        InputError: it is no metrics.json.
    """
    metrics = read_json(path) if path.is_file() else {}
    found = {"recipe": metrics.get("recipe"), "student": metrics.get("student", {}), "teacher": metrics.get("teacher", {})}
    sections = (found["student"], found["teacher"])
    numbers = [section.get(key) for section in sections if isinstance(section, dict) for key in ("top1", "num_images")]
    fits = all(isinstance(section, dict) for section in sections) and isinstance(found["recipe"], str | None)
    if not fits or not all(isinstance(number, int | float | None) and not isinstance(number, bool) for number in numbers):
        raise InputError(f"{path}: not the metrics of a run")
    return found
