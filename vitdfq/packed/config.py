"""config.json of a checkpoint: written by timm with two sections of ours, and read as what a stranger wrote."""

from pathlib import Path
from typing import Any

from timm.models._hub import save_config_for_hf
from torch import nn

from vitdfq import processes
from vitdfq.errors import InputError, RecipeError
from vitdfq.files import read_json, written_whole
from vitdfq.models.description import check_description, short
from vitdfq.packed.grammar import quantization_config
from vitdfq.recipe import load_recipe

FORMAT_VERSION = 3
CONFIG = "config.json"


def write_config(student: nn.Module, folder: Path, *, left_out: int) -> None:
    """Write config.json, in the main process: timm's own keys, `quantization_config`, and `vitdfq`, which builds the structure.

    `left_out` is how many shifts are not in the file because they are zero: one that got lost must be missed.
    """
    if not processes.is_main():
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
