"""Checks of a folder of weights before anything reads it: a config.json and a whole safetensors file of real numbers."""

import shlex
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.safetensors_io import NEVER_OPENED, read_header, read_tensors
from vitdfq.models.other_folders import foreign_weights, what_it_is
from vitdfq.models.transformers import is_transformers
from vitdfq.models.untrusted import check_arguments, check_pretrained_cfg

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"  # of weights in several files, model-00001-of-00002.safetensors and so on
KINDS = {  # suffix -> what a file of weights is
    ".bin": "a pickle of PyTorch",
    ".pth": "a pickle of PyTorch",
    ".pt": "a pickle of PyTorch",
    ".ckpt": "a training checkpoint, as PyTorch Lightning writes them",
    ".tar": "a training checkpoint, as timm writes them",
    ".pkl": "a pickle",
    ".safetensors": "a file of tensors without a config.json",
}
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pth.tar", "*.pkl")


def is_file_of_weights(path: Path) -> bool:
    """Whether a path is meant to be that of a file rather than of a folder, by its suffix."""
    return path.suffix in KINDS and not path.is_dir()


def refuse_file(file: Path) -> NoReturn:
    """Raise InputError with what a file of weights is, and the command that makes a folder of it."""
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.name == WEIGHTS and (file.parent / "config.json").is_file():
        raise InputError(f"{file}: name its folder, local-dir:{file.parent}")
    never = f"; {NEVER_OPENED}" if file.suffix != ".safetensors" else ""
    raise InputError(f"{file}: is {KINDS[file.suffix]}{never}; make a folder of it: {convert_command(file)}")


def convert_command(source: Path, architecture: str | None = "NAME") -> str:
    """The command that converts a file, or a folder that names its architecture, to be copied."""
    stem = source.name.partition(".")[0] or "model"
    out = next(
        path for path in (source.parent / f"{stem}{end}" for end in ("", "_converted", "_converted_2")) if not path.exists()
    )
    arch = ["--arch", architecture] if architecture else []
    return shlex.join(["vitdfq", "convert", str(source), *arch, "--out", str(out)])


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a folder of timm or of `transformers` (`is_transformers` tells them apart).

    Raises:
        InputError: no folder, no config, not JSON, a folder of something else, or a value that no model of timm has.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    file = folder / "config.json"
    if what := what_it_is(folder):
        raise InputError(f"{folder}: {what}")
    if not file.is_file():
        files = sorted(path for path in folder.iterdir() if path.suffix in KINDS)
        way_out = f"; make one of {files[0].name}: {convert_command(files[0])}" if files else ""
        raise InputError(f"{folder}: has no config.json, so it is not a timm model folder{way_out}")
    config = read_json(file)
    if "quantization_config" in config:
        raise InputError(f"{file}: of a quantized model, not of a float one; vitdfq.load(folder) reads what vitdfq saved")
    if is_transformers(config):
        return config
    if not isinstance(config.get("architecture"), str):
        raise InputError(f'{file}: names no "architecture" and no "model_type", so it is of neither timm nor transformers')
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
        command = convert_command(file.parent, architecture=None)
        raise InputError(f"{file.parent}: has {pickles[0]} but no {file.name}; {NEVER_OPENED}: {command}")
    others = "".join(f"; {path.name} is {what}" for path, what in foreign_weights(file.parent))
    raise InputError(f"{file.parent}: has no {file.name}{others}")


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder's weights, checked: model.safetensors, or the shards that its index lists.

    Raises:
        InputError: as `check_weights`, or an index that is damaged or names a file elsewhere.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        files = [folder / WEIGHTS]
    else:
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise InputError(f"{index}: has no weight_map")
        files = [folder / name for name in sorted(set(names.values()))]
        for file in files:
            if file.parent != folder or file.suffix != ".safetensors":
                raise InputError(f"{index}: names {file.name[:100]!r}, which is no safetensors file of this folder")
    for file in files:
        check_weights(file)
    return files


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Return all tensors of a folder's files of weights."""
    return {name: value for file in files for name, value in read_tensors(file).items()}
