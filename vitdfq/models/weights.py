"""Checks of a folder of weights before anything reads it: a config.json and a whole safetensors file of real numbers."""

from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.safetensors_io import CONVERT, read_header
from vitdfq.models.untrusted import check_arguments, check_pretrained_cfg

WEIGHTS = "model.safetensors"
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pth.tar", "*.pkl")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a timm local-dir folder.

    Raises:
        InputError: no folder, no config, not JSON, no name of an architecture in it, or a value that no model has.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: has no config.json, so it is not a timm model folder")
    config = read_json(file)
    if not isinstance(config.get("architecture"), str):
        raise InputError(f'{file}: names no "architecture", so it is not a timm model config')
    for key in ("model_args", "pretrained_cfg"):
        if not isinstance(config.get(key, {}), dict):
            raise InputError(f'{file}: its "{key}" is not a mapping')
    try:
        check_arguments(config.get("model_args", {}))
        check_pretrained_cfg(config.get("pretrained_cfg", config))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error
    return config


def check_weights(file: Path) -> None:
    """Check the header of a safetensors file; the tensors stay on disk.

    Raises:
        InputError: the file is missing, truncated, damaged, a pickle (which is recognized, not opened), or holds complex numbers.
    """
    if file.is_file():
        for name, (dtype, _) in read_header(file).items():
            if dtype.startswith("C"):  # torch would drop the imaginary part with a warning
                raise InputError(f"{file}: {name[:100]} is of type {dtype}; weights are real")
        return
    pickles = sorted(path.name for pattern in PICKLES for path in file.parent.glob(pattern))
    if pickles:
        raise InputError(f"{file.parent}: has {pickles[0]} but no {file.name}; {CONVERT}")
    raise InputError(f"{file.parent}: has no {file.name}")
