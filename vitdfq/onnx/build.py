"""From a model to the bytes of a checked ONNX file, with the results of the check."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto

from vitdfq.common.errors import ExportError, one_line
from vitdfq.onnx import storage
from vitdfq.onnx.layout import Layout
from vitdfq.onnx.modules import PatchEmbedding, exportable_copy, kind_of
from vitdfq.onnx.operators import OPSET
from vitdfq.onnx.storage import OpenedFile
from vitdfq.onnx.trace import traced
from vitdfq.quantization.modules import is_dynamic, named_sites


@dataclass(frozen=True)
class Built:
    """The file's content, and the entries of `export`'s result that describe it."""

    data: bytes
    results: dict[str, Any]


def build(model: Any, layout: Layout) -> Built:
    """Trace, check by ONNX's rules, and compare with the model where onnxruntime is installed; see `export` for errors.

    On a processor that multiplies int8 inexactly a file of the same student in uint8 is compared in its place.
    """
    kinds = {name: kind_of(name, site) for name, site in named_sites(model).items()}
    file = _file(model, layout, kinds)
    results: dict[str, Any] = {"runtime": layout.runtime, "cpu": layout.cpu, "opset": OPSET}
    results |= dict.fromkeys(("kernels", "disabled_optimizers", "sqnr_db", "least_site_sqnr_db"))
    if importlib.util.find_spec("onnxruntime") is not None:
        from vitdfq.onnx import check, runtime

        is_exact = layout.cpu == "avx2" or runtime.multiplies_int8_exactly()
        compared = file if is_exact else _file(model, Layout(cpu="avx2"), kinds)
        results |= check.compare(model, compared)
        if compared is not file:
            results["disabled_optimizers"] = runtime.failing_optimizers(file.data)
        results["kernels"] = runtime.kernels(file.data, kinds) if layout.runtime == "onnxruntime" else {}
    return Built(file.data, results)


def _file(model: Any, layout: Layout, kinds: dict[str, str]) -> OpenedFile:
    copy = exportable_copy(model, layout)
    graph = traced(copy)
    ends = storage.last_outputs(graph, list(kinds))
    storage.name_sites(graph, list(kinds))
    storage.store_small(graph, copy, layout)
    storage.describe(graph, model.vitdfq, layout, dynamic=is_dynamic(model))
    channels_last = {name for name in kinds if isinstance(copy.get_submodule(name), PatchEmbedding)}
    opened = storage.with_outputs(graph, list(ends.values()))
    return OpenedFile(_serialized(graph), opened, ends, channels_last)


def _serialized(graph: ModelProto) -> bytes:
    try:
        onnx.checker.check_model(graph, full_check=True)
        return graph.SerializeToString()
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"not a valid ONNX model: {one_line(error, most=300)}") from error
