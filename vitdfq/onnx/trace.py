"""From a module of standard operators to an ONNX model, by torch.export."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from onnx import ModelProto
from torch import nn

from vitdfq.common.errors import ExportError, one_line
from vitdfq.models import image_size, output_name
from vitdfq.models.block_maps import map_names
from vitdfq.onnx.operators import OPSET

INPUT, BATCH = "pixel_values", "batch"


def traced(copy: nn.Module) -> ModelProto:
    """Return the graph of an `exportable_copy`, from `pixel_values` (batch, 3, H, W) to `logits` (batch, classes).

    Features are called `features`, those of a projection to the space of texts `embedding`; tokens are (batch, N, D).

    Raises:
        ExportError: torch cannot trace it, or has no ONNX operator for something in it.
    """
    device = next(copy.parameters()).device
    example = torch.zeros(2, 3, *image_size(copy), device=device)
    try:
        with _quiet():
            program = torch.onnx.export(
                copy,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=map_names(copy) or [output_name(copy)],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                verbose=False,
            )
    except Exception as error:  # torch.export, its decompositions and the translation each have exceptions of their own
        reason = one_line(error.__cause__ or error, most=300)
        raise ExportError(f"torch.onnx.export cannot trace this {type(copy).__name__}: {reason}") from error
    assert program is not None
    graph = program.model_proto
    _name_batch(graph)
    return graph


def _name_batch(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of its own deprecated calls and logs operators of packages that it does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
