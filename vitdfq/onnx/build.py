"""From a model to the bytes of an ONNX file that was checked, and what was found on the way."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto
from torch import nn

from vitdfq.common.errors import ExportError, one_line
from vitdfq.onnx import storage
from vitdfq.onnx.modules import PatchEmbedding, exportable_copy, kind_of, sites
from vitdfq.onnx.operators import OPSET
from vitdfq.onnx.trace import traced


@dataclass(frozen=True)
class Built:
    """The file's content, and what to tell of it."""

    data: bytes
    found: dict[str, Any]


def build(model: nn.Module) -> Built:
    """Trace, check by ONNX's rules, and compare with the model where onnxruntime is installed; see `export` for errors."""
    copy = exportable_copy(model)
    graph = traced(copy)
    kinds = {name: kind_of(name, part) for name, part in sites(model).items()}
    ends = storage.last_outputs(graph, list(kinds))
    storage.name_sites(graph, list(kinds))
    storage.store_small(graph, copy)
    storage.describe(graph, model.vitdfq)
    data = _serialized(graph)
    found: dict[str, Any] = {"opset": OPSET, "kernels": None, "sqnr_db": None, "least_site_sqnr_db": None}
    if importlib.util.find_spec("onnxruntime") is not None:
        from vitdfq.onnx import check, runtime

        channels_last = {name for name in kinds if isinstance(copy.get_submodule(name), PatchEmbedding)}
        opened = storage.with_outputs(graph, list(ends.values()))
        found |= check.compared(model, data, opened, ends, channels_last)
        found["kernels"] = runtime.kernels(data, kinds)
    return Built(data, found)


def _serialized(graph: ModelProto) -> bytes:
    try:
        onnx.checker.check_model(graph, full_check=True)
        return graph.SerializeToString()
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"not a valid ONNX model: {one_line(error, most=300)}") from error
