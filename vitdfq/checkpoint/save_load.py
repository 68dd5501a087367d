"""Save and load a student: config.json builds the structure again, model.safetensors fills it, packed.

Formats 3 to 5 name and pack tensors as compressed-tensors does, see `state_dict.py`; formats 1 and 2 are still read.
"""

import os
from pathlib import Path
from typing import Any

from torch import nn

from vitdfq.checkpoint import formats_1_2, state_dict
from vitdfq.checkpoint.config_json import CONFIG, FORMAT_VERSION, read_config, write_config
from vitdfq.checkpoint.dequantize import plain_model
from vitdfq.checkpoint.describe import describe_folder
from vitdfq.checkpoint.validation import build_structure, check_layout, check_values, require_rebuilds
from vitdfq.common import safetensors_io
from vitdfq.common.errors import InputError
from vitdfq.common.files import written_together
from vitdfq.common.gradients import with_gradients
from vitdfq.common.hub_connection import download_snapshot
from vitdfq.models import require_float32, require_student
from vitdfq.models.untrusted import short
from vitdfq.quantization.fitted import allow
from vitdfq.runtime import distributed

__all__ = ["CHECKPOINT_FILES", "CONFIG", "EXPORTED", "FORMAT_VERSION", "describe", "float_bytes", "load", "read_config", "save"]

WEIGHTS = "model.safetensors"
EXPORTED = "onnx/model.onnx"  # an export of the student in the same folder
CHECKPOINT_FILES = [CONFIG, WEIGHTS, "recipe.yaml", "metrics.json", "README.md", "reports/*"]  # of a published run


@with_gradients
def save(student: Any, folder: str | Path) -> Path:
    """Write `student` (calibrated) to `folder`: config.json and model.safetensors, weights as packed integers.

    Before anything is written, the student is built again from what would be written and compared on one image. The files of an
    earlier checkpoint are replaced when the new ones are complete. Of several processes only the main one writes.

    Returns the folder. 4-bit weights take 4 bits on disk. An ONNX file of an earlier student in the folder is removed; other
    files in the folder are not changed.

    Raises:
        ValueError: not a student of this library, not calibrated yet, or changed in a way that the files cannot express.
        InputError: `folder` is a file.
        OSError: the system refused, for example on a full disk; the earlier checkpoint is as it was.
    """
    require_student(student, "save")
    require_float32(student, "save")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"save: {folder} is a file; a checkpoint is a folder")
    try:
        check_values(student)
    except ValueError as error:
        raise ValueError(f"{error}: calibrate the student before saving it") from error
    tensors = state_dict.to_tensors(student)
    written = state_dict.without_zero_shifts(tensors)
    if distributed.is_main():
        require_rebuilds(student, written)
        with written_together(folder / WEIGHTS, folder / CONFIG) as (weights, config):
            safetensors_io.write_temporary(weights, folder / WEIGHTS, written)
            write_config(student, config, left_out=len(tensors) - len(written), sha256=safetensors_io.digest(written))
        (folder / EXPORTED).unlink(missing_ok=True)
    return folder


@with_gradients
def load(source: str | Path, *, revision: str | None = None, dequantize: bool = False) -> nn.Module:
    """Return the student in `source`, a folder or a Hub repository id; its logits are bit-equal to the saved one's.

    Args:
        source: where `save` or `push` put it: a folder, or `owner/name[@revision]` on the Hub.
        revision: of a Hub repository, a branch, tag or commit; the newest of its main branch when None.
        dequantize: return a float model of the quantized weights instead, as timm builds it: its state_dict loads strictly in
            `timm.create_model` with the same arguments. The transforms of `prepare` are undone, see `dequantize.py`.

    Raises:
        InputError: files are missing, damaged, not of this library, or hold values that are not possible.
        AccessError: a Hub repository that could not be reached or read.
        ValueError: a revision of a folder.
    """
    folder = local_folder(source, revision)
    config, path = read_config(folder), folder / WEIGHTS
    header = safetensors_io.read_header(path)
    student, prepared = build_structure(config["vitdfq"], folder / CONFIG, path.stat().st_size)
    version = config["quantization_config"]["version"]
    is_older, heads = version < 3, version > 3
    if version < 5:
        state_dict.cover_whole_ranges(student)
    needed = formats_1_2.layout(student) if is_older else state_dict.layout(student, heads_in_settings=heads)
    needed = {name: like for name, like in needed.items() if version > 4 or not state_dict.is_clip(name)}
    may_lack = formats_1_2.may_lack(student, prepared) if is_older else {name for name in needed if state_dict.is_shift(name)}
    check_layout(path, header, needed, may_lack)
    lacking, left_out = sum(name not in header for name in may_lack), config["quantization_config"].get("left_out")
    if not is_older and lacking != left_out:
        raise InputError(f"{path}: tensors do not fit: {lacking} shifts are left out, {short(left_out)} were zero")
    try:
        tensors = safetensors_io.read_tensors(path)
        if is_older:
            formats_1_2.fill(student, tensors)
        else:
            state_dict.fill(student, tensors, heads_in_settings=heads)
        check_values(student)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if config["quantization_config"].get("sha256") not in (None, safetensors_io.digest(tensors)):
        raise InputError(f"{path}: not the weights that {CONFIG} was saved with: changed, or a save was interrupted; save again")
    allow(student)
    student.eval().requires_grad_(False)
    return plain_model(student, prepared) if dequantize else student


def describe(source: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint: model, bits by layer, sizes, measured accuracy.

    Args:
        source: a folder, or `owner/name[@revision]` on the Hub.

    Raises:
        InputError: missing, damaged, or not a checkpoint.
        AccessError: a Hub repository that could not be reached.
    """
    return describe_folder(local_folder(source), WEIGHTS)


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or a Hub repository's in the cache."""
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a checkpoint is a folder or a Hub repository id, not a {type(source).__name__}")
    try:
        exists = Path(source).exists()
    except (OSError, ValueError):  # too long for a path, or a NUL in it
        raise InputError(f"{str(source)[:100]!r}: neither a folder nor a Hub repository id") from None
    if revision is not None and (exists or "@" in str(source)):
        raise ValueError(f"revision {revision!r}: {source} {'is a folder' if exists else 'names a revision already'}")
    if exists:
        if Path(source).is_file():
            raise InputError(f"{source}: is a file; a checkpoint of vitdfq is the folder that a run wrote")
        return Path(source)
    return download_snapshot(f"{source}@{revision}" if revision else str(source), CHECKPOINT_FILES)


def float_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters in float32, as its original checkpoint stores them."""
    return 4 * sum(parameter.numel() for parameter in model.parameters())
