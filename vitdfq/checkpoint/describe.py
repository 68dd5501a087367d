"""`vitdfq info`: the content of a checkpoint, from its files alone; no weight is read."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitdfq.checkpoint.config_json import CONFIG, read_config
from vitdfq.common import safetensors_io
from vitdfq.common.errors import InputError, one_line
from vitdfq.common.files import read_json
from vitdfq.models import build, feature_width, gives
from vitdfq.models.untrusted import fits_file
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantWeighted, activation_quantizers, is_dynamic, named_weighted_modules

NUMBERS = ("agreement", "kl", "top1", "num_images", "cosine")  # keys of metrics.json's sections that are shown


def describe_folder(folder: Path, weights: str) -> dict[str, Any]:
    """Return plain values; see `vitdfq.checkpoint.save_load.describe`."""
    config = read_config(folder)
    header, num_bytes = safetensors_io.read_header(folder / weights), (folder / weights).stat().st_size
    spec = config["vitdfq"]
    try:
        with torch.device("meta"):  # sites and bits do not depend on the preparation
            student: Any = quantize(build(spec, most=fits_file(num_bytes)), **spec["quantize"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / CONFIG}: {one_line(error, most=None)}") from error
    metrics = _metrics(folder / "metrics.json")
    recipe = folder / "recipe.yaml"
    return {
        "model": spec["model"]["name"],
        "architecture": spec["model"]["architecture"],
        gives(student): feature_width(student),
        "bits": spec["quantize"].get("bits", "w4a4"),
        "activation ranges": _ranges(student),
        "layers": _layers(student),
        "packed layers": sum(name.endswith(".weight_packed") for name in header),
        "prepared by": spec.get("prepare", {}).get("steps", []),
        "bytes": num_bytes,
        "float bytes": 4 * sum(part.numel() for part in student.parameters()),
        "format": config["quantization_config"]["version"],
        "written by": f"vitdfq {config['quantization_config'].get('library_version')}",
        "agreement": metrics["student"].get("agreement"),
        "kl": metrics["student"].get("kl"),
        "top1": metrics["student"].get("top1"),
        "teacher top1": metrics["teacher"].get("top1"),
        **({"cosine": metrics["student"]["cosine"]} if "cosine" in metrics["student"] else {}),
        **({"top1 read by": metrics["read_by"]} if "cosine" in metrics["student"] else {}),
        "images": metrics["student"].get("num_images"),
        "recipe": metrics.get("recipe"),
        "reproduce": f"vitdfq run {shlex.quote(str(recipe))}" if recipe.is_file() else None,
    }


def summary(description: dict[str, Any]) -> str:
    """The result of `describe_folder` as lines of text, without the entries that are not known."""
    lines = []
    for key, value in description.items():
        if key == "layers":
            lines += [
                f"{kind:17} {row['layers']:3} x  weights {row['weight bits']}, inputs {row['input bits']} bits"
                for kind, row in value.items()
            ]
        elif value not in (None, []):
            lines.append(f"{key:17} {', '.join(value) if isinstance(value, list) else value}")
    return "\n".join(lines)


def _ranges(student: nn.Module) -> str | None:
    """Whether ranges of activations are determined as these arrive; None: no activation is quantized."""
    if not activation_quantizers(student):
        return None
    return "dynamic: they follow the values" if is_dynamic(student) else "static"


def _layers(student: nn.Module) -> dict[str, dict[str, Any]]:
    """Kind of layer ("attn.qkv", "patch_embed.proj") -> how many, and bits of weights and inputs: "4", or "6, 4" if they vary."""
    kinds: dict[str, list[QuantWeighted]] = {}
    for name, layer in named_weighted_modules(student):
        kinds.setdefault(_kind(name), []).append(layer)
    return {
        kind: {
            "layers": len(layers),
            "weight bits": _distinct(layer.weight_quantizer.bits for layer in layers),
            "input bits": _distinct(layer.input_quantizer.bits for layer in layers),
        }
        for kind, layers in kinds.items()
    }


def _distinct(bits: Iterable[int | None]) -> str:
    """Each number of bits once, in the order of appearance."""
    return ", ".join("float" if number is None else str(number) for number in dict.fromkeys(bits))


def _kind(name: str) -> str:
    """A layer's name without its position in the stack: "blocks.3.attn.qkv" is an "attn.qkv"."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts) or name


def _metrics(path: Path) -> dict[str, Any]:
    """The name of the recipe and the sections student and teacher of metrics.json; all of them empty without the file.

    Raises:
        InputError: not the metrics.json of a run.
    """
    content = read_json(path) if path.is_file() else {}
    metrics = {"recipe": content.get("recipe"), "student": content.get("student", {}), "teacher": content.get("teacher", {})}
    metrics["read_by"] = content.get("read_by")
    sections, texts = (metrics["student"], metrics["teacher"]), (metrics["recipe"], metrics["read_by"])
    numbers = [section.get(key) for section in sections if isinstance(section, dict) for key in NUMBERS]
    fits = all(isinstance(section, dict) for section in sections) and all(isinstance(text, str | None) for text in texts)
    if not fits or not all(isinstance(number, int | float | None) and not isinstance(number, bool) for number in numbers):
        raise InputError(f"{path}: not the metrics of a run")
    return metrics
