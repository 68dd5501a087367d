"""An exported file as a function of images, in onnxruntime or OpenVINO on the CPU."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

Runner = Callable[[Tensor], np.ndarray]  # normalized images (B, 3, H, W) -> logits (B, classes)


def is_installed(runtime: str) -> bool:
    """Whether a runtime can be imported here: "onnxruntime" or "openvino"."""
    return importlib.util.find_spec(runtime) is not None


def in_onnxruntime(path: Path, threads: int, without: Sequence[str] = ()) -> Runner:
    """The file as onnxruntime runs it, by our settings (see `runtime.session`); optimizers named in `without` are left out."""
    from vitdfq.onnx.runtime import session  # onnxruntime may be absent where OpenVINO is used alone

    running = session(path.read_bytes(), threads, without=without)
    name = running.get_inputs()[0].name
    return lambda images: np.asarray(running.run(None, {name: images.numpy()})[0])


def in_openvino(path: Path, precision: str, threads: int) -> Runner:
    """The file in OpenVINO's CPU plugin; what is not int8 is computed in `precision`, "f32" or "bf16"."""
    import openvino  # pyright: ignore[reportMissingImports]

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda images: request.infer([images.numpy()])[compiled.outputs[0]]


def openvino_has_bfloat16() -> bool:
    """Whether OpenVINO computes bfloat16 on this processor."""
    import openvino  # pyright: ignore[reportMissingImports]

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
