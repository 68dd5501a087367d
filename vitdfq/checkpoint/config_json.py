"""config.json of a checkpoint: written by timm with two sections of ours, and read as what a stranger wrote."""

from pathlib import Path
from typing import Any

from timm.models._hub import save_config_for_hf
from torch import nn

import vitdfq
from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.files import read_json, written_whole
from vitdfq.models.untrusted import check_description, short
from vitdfq.quantization.modules import named_weighted_modules
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.uniform import Uniform
from vitdfq.recipe import load_recipe
from vitdfq.runtime import distributed

FORMAT_VERSION = 3
CONFIG = "config.json"


def write_config(student: nn.Module, folder: Path, *, left_out: int) -> None:
    """Write config.json, in the main process: timm's own keys, `quantization_config`, and `vitdfq`, which builds the structure.

    `left_out` is how many shifts are not in the file because they are zero: one that got lost must be missed.
    """
    if not distributed.is_main():
        return
    packed = {"version": FORMAT_VERSION, "left_out": left_out} | quantization_config(student)
    sections = {"quantization_config": packed, "vitdfq": student.vitdfq}
    with written_whole(folder / CONFIG) as temporary:
        save_config_for_hf(student, str(temporary), sections, student.vitdfq["model"]["model_args"])


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a checkpoint folder, every value that shapes the model checked.

    Raises:
        InputError: missing, not JSON, not written by this library or by a newer version of it, or saying what cannot be.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {folder} a vitdfq checkpoint?")
    config = read_json(path)
    said, spec = config.get("quantization_config"), config.get("vitdfq")
    if not isinstance(said, dict) or not isinstance(spec, dict) or said.get("quant_method") != "vitdfq":
        raise InputError(f"{path}: not a vitdfq checkpoint (no quantization_config of quant_method vitdfq)")
    version = said.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{path}: quantization_config.version is {short(version)}; choices: 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: format version {version} is newer than this vitdfq reads ({FORMAT_VERSION}); upgrade")
    for section in ("model", "quantize"):
        if not isinstance(spec.get(section), dict):
            raise InputError(f"{path}: vitdfq.{section} is not a mapping")
    try:
        check_description(spec["model"])
        model = {"name": spec["model"]["architecture"]}
        load_recipe({"model": model, "prepare": spec.get("prepare"), "quantize": spec["quantize"]})
    except RecipeError as error:
        raise InputError(f"{path}: vitdfq: {str(error).removeprefix('recipe: ')}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def quantization_config(student: nn.Module) -> dict[str, Any]:
    """Return the section for a calibrated student. Layers of the same grids share a group; `ignore` names those in float."""
    groups: list[dict[str, Any]] = []
    ignored: list[str] = []
    for name, part in named_weighted_modules(student):
        grids = {"weights": _weights(part.weight_quantizer), "input_activations": _inputs(part.input_quantizer)}
        if grids["weights"] is None:
            ignored.append(name)
        same = next((group for group in groups if {key: group[key] for key in grids} == grids), None)
        if same is None:
            groups.append(same := {"targets": [], **grids})
        same["targets"].append(name)
    groups = [group for group in groups if group["weights"] is not None]
    return {
        "quant_method": "vitdfq",
        "library_version": vitdfq.__version__,
        "bits": student.vitdfq["quantize"]["bits"],
        "modules_to_not_convert": ignored,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ignored,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
    }


def _weights(quantizer: nn.Module) -> dict[str, Any] | None:
    """None: in float."""
    if not isinstance(quantizer, Uniform):
        return None
    return _args(quantizer, quantizer.granularity) | {"group_size": quantizer.group_size}


def _inputs(quantizer: nn.Module) -> dict[str, Any] | None:
    """None: in float, or on a grid that compressed-tensors has no word for."""
    if isinstance(quantizer, TokenUniform):
        return _args(quantizer, "token") | {"dynamic": True}
    return _args(quantizer, "tensor") | {"dynamic": False} if isinstance(quantizer, Uniform) else None


def _args(quantizer: Uniform | TokenUniform, strategy: str) -> dict[str, Any]:
    return {"num_bits": quantizer.bits, "type": "int", "symmetric": quantizer.symmetric, "strategy": strategy}
