"""From a model to the bytes of an ONNX file that was checked, and what was found on the way."""

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from vitdfq.errors import ExportError, GateError
from vitdfq.models import image_size
from vitdfq.onnx import storage
from vitdfq.onnx.modules import exportable_copy, kind_of, sites
from vitdfq.onnx.operators import OPSET
from vitdfq.onnx.trace import traced

NUM_IMAGES = 5  # of the comparison; another batch than was traced
LEAST_SQNR = 20.0  # dB


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
    storage.name_sites(graph, list(kinds))
    storage.store_small(graph, copy)
    storage.describe(graph, model.vitdfq)
    data = _serialized(graph)
    found: dict[str, Any] = {"opset": OPSET, "kernels": None, "sqnr_db": None}
    if importlib.util.find_spec("onnxruntime") is not None:
        from vitdfq.onnx import runtime

        images = torch.randn(NUM_IMAGES, 3, *image_size(model), generator=torch.Generator().manual_seed(0))
        found["sqnr_db"] = require_close(runtime.outputs(runtime.session(data), images), expected(model, images))
        found["kernels"] = runtime.kernels(data, kinds)
    return Built(data, found)


def _serialized(graph: ModelProto) -> bytes:
    try:
        onnx.checker.check_model(graph, full_check=True)
        return graph.SerializeToString()
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"not a valid ONNX model: {' '.join(str(error).split())[:300]}") from error


@torch.no_grad()
def expected(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of the model itself, on the CPU."""
    return model(images.to(next(model.parameters()).device)).float().cpu()


def require_close(found: Tensor, wanted: Tensor) -> float | None:
    """Return the signal-to-noise ratio of the median image's logits (B, classes) in dB, None where they are equal.

    Another order of sums rounds some values to the neighbouring code, and each such step goes on to the layers behind: the
    student itself differs as much when it computes in float64. So a single image may be far off, most are not.

    Raises:
        GateError: it is below LEAST_SQNR, or not a number.
    """
    signal, noise = (values.double().square().sum(1) for values in (wanted, found - wanted))
    sqnr = 10 * torch.log10(signal / noise).sort().values[len(signal) // 2].item()  # NaN sorts last
    if noise.isnan().any() or sqnr < LEAST_SQNR:
        raise GateError(f"onnxruntime's logits are {sqnr:.1f} dB near the student's, at least {LEAST_SQNR:g} are expected")
    return None if math.isinf(sqnr) else round(sqnr, 1)
