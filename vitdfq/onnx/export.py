"""export(): a student as an ONNX file, checked before it gets its name."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from torch import nn

from vitdfq.checkpoint import save_load
from vitdfq.checkpoint.save_load import EXPORTED
from vitdfq.common.errors import ExportError
from vitdfq.common.files import written_whole
from vitdfq.common.lookup import lookup
from vitdfq.common.safetensors_io import not_finite
from vitdfq.models import output_name
from vitdfq.models.require import require_ready
from vitdfq.models.wrappers import require_unwrapped
from vitdfq.onnx.layout import Layout


def export(
    source: nn.Module | str | Path,
    path: str | Path | None = None,
    *,
    format: str = "onnx",
    runtime: str = "onnxruntime",
    cpu: str = "vnni",
) -> dict[str, Any]:
    """Write a student as a model that other runtimes read. The file is written whole and checked, or not at all.

    Args:
        source: a calibrated student, a teacher or prepared model (stays float), or a folder or Hub repository of `save`.
        path: of the file; None: `onnx/model.onnx` in the folder `source`.
        format: "onnx": QDQ with integer weights, opset 21; input `pixel_values` (batch, 3, H, W), normalized; output `logits` of
            a model of classes, `features` of a backbone, `embedding` of a tower that projects to the space of texts (CLIP).
        runtime: the types of the codes are those which it multiplies as integers: "onnxruntime", "openvino" or "tensorrt". All
            files compute the same. OpenVINO multiplies products of attention as integers where their grids are symmetric,
            TensorRT takes symmetric grids only: quantize with the policy of that name.
        cpu: of the users: "vnni", or "avx2" for x86 without it, where products of int8 overflow: codes of 8 bits are uint8 then.

    Returns:
        file, bytes, runtime, cpu, opset; `output`: its name; `kernels`: kind of site ("linear", "qk", "av", "convolution") ->
        onnxruntime's arithmetic ("integer", "weights alone": packed weights and float arithmetic, "float") -> number of sites;
        `sqnr_db`: SQNR of its output against the student's, of the median of three random images; `least_site_sqnr_db`: the same
        of the output of one site for the same input, for the worst site. The last two are None where equal. For another runtime
        `kernels` is empty. `disabled_optimizers`: what onnxruntime's `InferenceSession` needs under this name to open the file,
        mostly nothing. Without onnxruntime these four are None.

    Raises:
        ValueError: unknown format, runtime or cpu; a module that is not of this library, or not calibrated.
        ExportError: onnx is not installed or cannot express the student, or the runtime refuses its grids; no path, and no folder
            in which the file could lie.
        GateError: the outputs of onnxruntime differ from the student's.
        InputError, AccessError: the folder, see `load`.
    """
    lookup(format, FORMATS, "export format")
    layout = Layout(runtime, cpu)
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{' and '.join(missing)} not installed: pip install 'vitdfq[onnx]'")
    model = source if isinstance(source, nn.Module) else save_load.load(source)
    if path is None:
        if isinstance(source, nn.Module) or not Path(source).is_dir():
            raise ExportError("export needs the path of a file to write: the model does not lie in a folder here")
        path = Path(source) / EXPORTED
    if Path(path).is_dir():
        raise ExportError(f"{path} is a folder; export writes a file")
    _require_calibrated(model)
    return FORMATS[format](model, Path(path), layout)


def _require_calibrated(model: nn.Module) -> None:
    require_unwrapped(model, "export")
    if not isinstance(getattr(model, "vitdfq", None), dict):
        raise ValueError(f"export takes what load_teacher, prepare or quantize returned, not this {type(model).__name__}")
    require_ready(model, "export")
    if name := not_finite(model):
        raise ValueError(f"{name} is not finite: calibrate the student before exporting it")


def _onnx(model: nn.Module, path: Path, layout: Layout) -> dict[str, Any]:
    from vitdfq.onnx.build import build

    built = build(model, layout)
    with written_whole(path) as temporary:
        temporary.write_bytes(built.data)
    return {"file": os.fspath(path), "bytes": len(built.data), "output": output_name(model)} | built.results


FORMATS = {"onnx": _onnx}


def summary(result: dict[str, Any]) -> str:
    """The result of `export` as lines of text."""
    lines = {"file": result["file"], "bytes": f"{result['bytes']:,}", "opset": result["opset"]}
    lines["layout"] = result["runtime"] if result["runtime"] == "tensorrt" else f"{result['runtime']}, {CODES[result['cpu']]}"
    if result["kernels"] is None:
        return _table(lines | {"onnxruntime": f"not installed: neither the {result['output']} nor the kernels were checked"})
    lines["each site"] = f"{_near(result['least_site_sqnr_db'])} or nearer to the student's output for the same input"
    lines[result["output"]] = f"{_near(result['sqnr_db'])}; rounding steps of all sites add up"
    if names := result["disabled_optimizers"]:
        lines["onnxruntime"] = f"opens it with InferenceSession(..., disabled_optimizers={names}) only"
    for kind, counts in result["kernels"].items():
        lines[kind] = ", ".join(f"{count} {ARITHMETIC[name]}" for name, count in counts.items())
    return _table(lines)


CODES = {
    "vnni": "8 bits as int8: x86 without VNNI needs --cpu avx2",
    "avx2": "8 bits as uint8: exact on every processor",
}
ARITHMETIC = {
    "integer": "as integers",
    "weights alone": "with packed weights, in float arithmetic",
    "float": "simulated in float",
}


def _near(sqnr: float | None) -> str:
    return "equal" if sqnr is None else f"{sqnr} dB"


def _table(lines: dict[str, Any]) -> str:
    return "\n".join(f"{key:15} {value}" for key, value in lines.items())
