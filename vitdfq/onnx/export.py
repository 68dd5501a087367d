"""export(): a student as an ONNX file, checked before it is there."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from torch import nn

from vitdfq import checkpoint
from vitdfq.errors import ExportError
from vitdfq.files import written_whole
from vitdfq.pick import pick


def export(source: nn.Module | str | Path, path: str | Path | None = None, *, format: str = "onnx") -> dict[str, Any]:
    """Write a student as a model that other runtimes read. The file is there whole and checked, or not at all.

    Args:
        source: a calibrated student, a teacher or prepared model (stays float), or a folder or Hub repository of `save`.
        path: of the file; of a folder `RUN/onnx/model.onnx` when None.
        format: "onnx": QDQ with integer weights, opset 21; input `pixel_values` (batch, 3, H, W), normalised; output `logits`.

    Returns:
        file, bytes, opset; `kernels`: kind of site ("linear", "qk", "av", "convolution") -> what onnxruntime computes in
        ("integer", "weights alone": 4-bit weights and float arithmetic, "float") -> number of sites; `sqnr_db`: how near its
        logits are to the student's on random images, None when equal. Without onnxruntime both are None: not checked.

    Raises:
        ValueError: unknown format; no path for a student that lies in no folder.
        ExportError: onnx is not installed, or cannot express the student.
        GateError: onnxruntime computes something else than the student.
        InputError, AccessError: the folder, see `load`.
    """
    pick(format, FORMATS, "export format")
    if path is None:
        if isinstance(source, nn.Module):
            raise ValueError("export needs a path for a student that lies in no folder")
        path = Path(source) / "onnx" / "model.onnx"
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{' and '.join(missing)} not installed: pip install 'vitdfq[onnx]'")
    model = source if isinstance(source, nn.Module) else checkpoint.load(source)
    return FORMATS[format](model, Path(path))


def _onnx(model: nn.Module, path: Path) -> dict[str, Any]:
    from vitdfq.onnx.build import build

    built = build(model)
    with written_whole(path) as temporary:
        temporary.write_bytes(built.data)
    return {"file": os.fspath(path), "bytes": len(built.data)} | built.found


FORMATS = {"onnx": _onnx}


def told(found: dict[str, Any]) -> str:
    """What `export` returned, as lines for people."""
    lines = {"file": found["file"], "bytes": f"{found['bytes']:,}", "opset": found["opset"]}
    if found["kernels"] is None:
        return _table(lines | {"onnxruntime": "not installed: neither the logits nor the kernels were checked"})
    near = "equal" if found["sqnr_db"] is None else f"{found['sqnr_db']} dB near"
    lines["logits"] = f"{near} to the student's, by onnxruntime on random images"
    for kind, counts in found["kernels"].items():
        lines[kind] = ", ".join(f"{count} {ARITHMETIC[name]}" for name, count in counts.items())
    return _table(lines)


ARITHMETIC = {
    "integer": "as integers",
    "weights alone": "with packed weights, in float arithmetic",
    "float": "simulated in float",
}


def _table(lines: dict[str, Any]) -> str:
    return "\n".join(f"{key:15} {value}" for key, value in lines.items())
