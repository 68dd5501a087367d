"""What a folder of weights must be before anything reads it: a config.json and a whole, real safetensors file."""

import json
from pathlib import Path
from typing import Any

from vitdfq.errors import InputError
from vitdfq.tensors import CONVERT, read_metadata

WEIGHTS = "model.safetensors"
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pth.tar", "*.pkl")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a timm local-dir folder.

    Raises:
        InputError: no folder, no config, not JSON, or nothing in it that names an architecture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no config.json, so it is not a timm model folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(f'{file}: names no "architecture", so it is not a timm model config')
    for key in ("model_args", "pretrained_cfg"):
        if not isinstance(config.get(key, {}), dict):
            raise InputError(f'{file}: its "{key}" is not a mapping')
    return config


def check_weights(file: Path) -> None:
    """Look at the header of a safetensors file; the tensors stay on disk.

    Raises:
        InputError: the file is missing, truncated, damaged, or a pickle (which is recognised, not opened).
    """
    if file.is_file():
        read_metadata(file)
        return
    pickles = sorted(path.name for pattern in PICKLES for path in file.parent.glob(pattern))
    if pickles:
        raise InputError(f"{file.parent}: has {pickles[0]} but no {file.name}; {CONVERT}")
    raise InputError(f"{file.parent}: has no {file.name}")
