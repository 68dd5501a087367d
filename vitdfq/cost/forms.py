"""The forms in which a finished run's model can be deployed on a CPU: in PyTorch, and as files in runtimes that are installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.errors import ExportError, one_line
from vitdfq.cost.timing import autocast_bfloat16, in_bfloat16
from vitdfq.models.images import image_size
from vitdfq.onnx import export
from vitdfq.onnx.runners import in_onnxruntime, in_openvino, is_installed, openvino_has_bfloat16
from vitdfq.quantization.integer import to_integer

Form = Callable[[Tensor], Any]  # normalized images (B, 3, H, W) -> outputs

FLOAT32 = "float32"
INTEGER = "to_integer"
TITLES = (  # nearest to the float model first; of equally near ones the simplest to deploy
    FLOAT32,
    "float32 file, onnxruntime",
    "float32 file, OpenVINO",
    "bfloat16 autocast",
    "bfloat16",
    "float32 file, OpenVINO in bfloat16",
    INTEGER,
    "student's file, onnxruntime",
    "student's file, OpenVINO",
)
QUANTIZED = TITLES[TITLES.index(INTEGER) :]


def forms_of(student: nn.Module, teacher: nn.Module, folder: Path, threads: int) -> tuple[dict[str, Form], dict[str, str]]:
    """Return ({title: form}, {title: why it is left out}), in the order of `TITLES`.

    Args:
        student: calibrated, on the CPU.
        teacher: the float model of the same structure; its weights do not matter to the speed.
        folder: where files are written; they must stay there while the forms are used.
        threads: of the runtimes. PyTorch uses its own setting.
    """
    forms: dict[str, Form] = {FLOAT32: teacher}
    left_out: dict[str, str] = {}
    in_pytorch: dict[str, Callable[[], Form]] = {
        "bfloat16 autocast": lambda: autocast_bfloat16(teacher),
        "bfloat16": lambda: in_bfloat16(teacher),
        INTEGER: lambda: to_integer(student),
    }
    for title, make in (in_pytorch | _files(student, teacher, folder, threads)).items():
        try:
            form = make()
            form(torch.zeros(1, 3, *image_size(teacher)))
        except Exception as error:  # runtimes raise any type for a file that they refuse
            left_out[title] = one_line(error)
        else:
            forms[title] = form
    return {title: forms[title] for title in TITLES if title in forms}, left_out


def _files(student: nn.Module, teacher: nn.Module, folder: Path, threads: int) -> dict[str, Callable[[], Form]]:
    """How each file is written, once, and opened."""
    written: dict[str, dict[str, Any]] = {}  # name -> result of `export`

    def file(model: nn.Module, name: str, runtime: str) -> dict[str, Any]:
        if name not in written:
            written[name] = export(model, folder / f"{name}.onnx", runtime=runtime, cpu=_processor())
        return written[name]

    def onnxruntime(model: nn.Module, name: str) -> Form:
        _require("onnxruntime")
        result = file(model, name, "onnxruntime")
        return in_onnxruntime(Path(result["file"]), threads, result["disabled_optimizers"] or ())

    def openvino(model: nn.Module, name: str, runtime: str, precision: str = "f32") -> Form:
        _require("openvino")
        if precision == "bf16" and not openvino_has_bfloat16():
            raise ExportError("OpenVINO does not compute bfloat16 on this processor")
        return in_openvino(Path(file(model, name, runtime)["file"]), precision, threads)

    return {
        "float32 file, onnxruntime": lambda: onnxruntime(teacher, "float32"),
        "float32 file, OpenVINO": lambda: openvino(teacher, "float32", "onnxruntime"),  # without codes the layouts are one
        "float32 file, OpenVINO in bfloat16": lambda: openvino(teacher, "float32", "onnxruntime", "bf16"),
        "student's file, onnxruntime": lambda: onnxruntime(student, "student_onnxruntime"),
        "student's file, OpenVINO": lambda: openvino(student, "student_openvino", "openvino"),
    }


def _require(runtime: str) -> None:
    if not is_installed(runtime):
        raise ExportError(f"{runtime} is not installed")


def _processor() -> str:
    """The layout of 8-bit codes for this machine; onnxruntime, where it is installed, tries which one is exact."""
    if not is_installed("onnxruntime"):
        return "vnni"
    from vitdfq.onnx.runtime import multiplies_int8_exactly

    return "vnni" if multiplies_int8_exactly() else "avx2"
