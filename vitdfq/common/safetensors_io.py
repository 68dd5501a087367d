"""Tensors in safetensors files: written whole or not at all, a damaged file is named, a pickle is never opened."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitdfq.common.errors import InputError, one_line
from vitdfq.common.files import written_whole

Header = dict[str, tuple[str, tuple[int, ...]]]
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # first bytes of what torch.save writes, today and before version 1.6
SYSTEM_ERROR = re.compile(r"os error (\d+)|Os \{ code: (\d+)")  # an OSError in the messages of safetensors
NEVER_OPENED = "a pickle can run code when read, so it is not opened here; `vitdfq convert` reads its tensors alone"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors (moved to the CPU, made contiguous) and string metadata, whole or not at all.

    Raises:
        OSError: the system refused, for example on a full disk; it names the file.
    """
    with written_whole(path) as temporary:
        write_temporary(temporary, path, tensors, metadata)


def write_temporary(temporary: Path, path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write the file that is to be renamed to `path`, which errors name; raises as `write_tensors`."""
    ready, storages = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        ready[name] = value.clone() if value.untyped_storage() in storages else value  # the format has no tensors that share
        storages.add(value.untyped_storage())
    try:
        save_file(ready, temporary, metadata={"format": "pt"} | (metadata or {}))
    except SafetensorError as error:
        system = SYSTEM_ERROR.search(str(error))
        if system is None:
            raise
        number = int(system[1] or system[2])
        raise OSError(number, os.strerror(number), str(path)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a file.

    Raises:
        InputError: the file is missing, damaged, a pickle, or holds a type that torch lacks.
    """
    with _open(path) as file:
        try:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except Exception as error:  # safetensors and torch raise several types for a file of unknown origin
            raise InputError(f"{path}: holds a tensor that cannot be read ({one_line(error)})") from error


def read_header(path: Path) -> Header:
    """Return name -> (type, shape) of a file's tensors, which stay on disk; raises as `read_tensors`."""
    with _open(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of names, types, shapes and values."""
    checksum = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        array: Any = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        checksum.update(array)
    return checksum.hexdigest()


def not_finite(model: torch.nn.Module) -> str | None:
    """Return the name of the first tensor in a model's state that holds NaN or infinity, or None."""
    values = model.state_dict().items()
    return next((name for name, value in values if value.is_floating_point() and not value.isfinite().all()), None)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a torch type in a header: "I32" for `torch.int32`."""
    return DTYPES.get(dtype, str(dtype))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the string metadata of a file; raises as `read_tensors`."""
    with _open(path) as file:
        return file.metadata() or {}


def is_pickle(path: Path) -> bool:
    """Whether a file that is not safetensors begins as a pickle. (A valid file begins with a length, which can be any bytes.)"""
    with open(path, "rb") as file:
        start = file.read(4)
    return start == ZIP or start[:1] == PICKLE


def _open(path: Path):
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        if is_pickle(path):
            raise InputError(f"{path}: is a pickle, not safetensors; {NEVER_OPENED}") from error
        raise InputError(f"{path}: damaged or truncated safetensors file ({one_line(error)})") from error
