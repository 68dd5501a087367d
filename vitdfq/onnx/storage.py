"""What the file stores of a traced graph: 4-bit weights in 4 bits, products named by their sites, no paths of this machine."""

import ast
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from vitdfq.common.version import __version__
from vitdfq.onnx.layout import Layout
from vitdfq.onnx.weights import IntegerWeight

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's list of the modules that a node was traced in
DESCRIPTION = ("input_size", "mean", "std", "interpolation", "crop_pct", "label_names")


@dataclass(frozen=True)
class OpenedFile:
    """A file, and what is needed to look into it.

    Attributes:
        data: the file.
        opened: the same with the sites' outputs.
        ends: site -> name of its output there.
        channels_last: sites whose output is (B, h, w, D) there, and (B, D, h, w) in the student.
    """

    data: bytes
    opened: bytes
    ends: dict[str, str]
    channels_last: set[str]


def last_outputs(model: ModelProto, modules: list[str]) -> dict[str, str]:
    """Return module -> the name of its output in the graph, before a transposition, which an optimizer may merge away."""
    last: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Transpose":
            last |= {scope: node.output[0] for scope in _scopes(node) if scope in modules}
    return {name: last[name] for name in modules}


def with_outputs(model: ModelProto, names: list[str]) -> bytes:
    """The model, serialized, with these float tensors as further outputs."""
    opened = ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return opened.SerializeToString()


def name_sites(model: ModelProto, sites: list[str]) -> None:
    """Give the product or convolution of each site the site's name, and drop the exporter's notes, which contain paths."""
    for node in model.graph.node:
        scopes = _scopes(node)
        if node.op_type in ("MatMul", "Gemm", "Conv") and len(scopes) > 1 and scopes[-2] in sites:
            node.name = scopes[-2]
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del value.metadata_props[:]
    del model.graph.value_info[:]  # shapes between the nodes: any reader infers them


def _scopes(node: NodeProto) -> list[str]:
    notes = {note.key: note.value for note in node.metadata_props}
    return ast.literal_eval(notes.get(SCOPES, "[]"))


def describe(model: ModelProto, record: dict[str, Any], layout: Layout, *, dynamic: bool) -> None:
    """Write into the file this library's version, the model, its bits, the layout, and how its input images are prepared."""
    config = record["model"]["pretrained_cfg"]
    description = {
        "name": record["model"]["name"],
        "bits": record.get("quantize", {}).get("bits"),
        "dynamic": dynamic,
        "runtime": layout.runtime,
        "cpu": layout.cpu,
        "input": {key: config[key] for key in DESCRIPTION if key in config},
    }
    model.producer_name, model.producer_version = "vitdfq", __version__
    helper.set_model_props(model, {"vitdfq": json.dumps(description)})


def store_small(model: ModelProto, copy: nn.Module, layout: Layout) -> None:
    """Store weights of up to 4 bits as int4.

    Where activations are integers too, a Cast to int8 follows, which onnxruntime executes once, when it loads the file: its
    integer kernels read int8. Elsewhere DequantizeLinear reads the int4 itself: kernels for weights alone match that pattern.
    TensorRT reads no such Cast: its weights stay int8.
    """
    if layout.runtime == "tensorrt":
        return
    graph = model.graph
    small = {f"{name}.codes": part for name, part in copy.named_modules() if isinstance(part, IntegerWeight) and part.bits <= 4}
    values = {tensor.name: tensor for tensor in graph.initializer}
    readers = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in small]
    assert len(readers) == len(small), "a weight was traced in an unknown form"
    for node in readers:
        codes, weight = node.input[0], small[node.input[0]]
        tensor = _int4(values[codes])
        if weight.alone or weight.block_size is not None:
            zero_point = _int4(values[node.input[2]], f"{codes}.zero_point")
            graph.initializer.append(zero_point)
            node.input[2] = zero_point.name
        else:
            wide = f"{codes}.int8"
            _insert_before(graph, node, helper.make_node("Cast", [codes], [wide], name=f"{codes}.cast", to=TensorProto.INT8))
            node.input[0] = wide
        values[codes].CopyFrom(tensor)
    _drop_unused(graph)


def _int4(tensor: TensorProto, name: str | None = None) -> TensorProto:
    """The same integers, two in a byte, the first in the low half."""
    codes = numpy_helper.to_array(tensor).reshape(-1)
    halves = np.concatenate([codes, np.zeros(len(codes) % 2, codes.dtype)]).astype(np.uint8) & 15
    packed = halves[0::2] | (halves[1::2] << 4)
    return helper.make_tensor(name or tensor.name, TensorProto.INT4, tensor.dims, packed.tobytes(), raw=True)


def _insert_before(graph: GraphProto, node: NodeProto, new: NodeProto) -> None:
    graph.node.insert(next(i for i, other in enumerate(graph.node) if other is node), new)


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    remaining = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(remaining)
