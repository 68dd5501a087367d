"""onnxruntime: a session with PyTorch's arithmetic, and the kernels that it chose for the sites."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor

from vitdfq.onnx.trace import INPUT

INTEGER = ("MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger")
# By default 4-bit weights alone are multiplied by rounded activations: an error of hundredths of the output.
EXACT = {"session.qdq_matmulnbits_accuracy_level": "1"}
# They move the rounding by a reader of a product to the product itself: the logits stay the same, the product's output does not.
PROPAGATION = "QDQPropagationTransformer"
BACKWARDS = (PROPAGATION, "TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider")


def session(
    model: bytes, threads: int = 0, optimized: Path | None = None, without: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    """Return a CPU session.

    Args:
        model: serialized.
        threads: 0 for as many as there are cores.
        optimized: file for the graph that is run.
        without: optimizers of onnxruntime that are left out.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in EXACT.items():
        options.add_session_config_entry(key, value)
    if optimized is not None:  # without memory layouts of this processor, which do not concern integers
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=set(without))


def outputs(model: bytes, images: Tensor, names: Sequence[str] = (), own: int = 1, without: Sequence[str] = ()) -> list[Tensor]:
    """Return the model's own outputs for normalized images (B, 3, H, W), `own` many, and the other outputs that are named.

    Optimizers that are named in `without` are left out.
    """
    running = session(model, without=(*without, *(BACKWARDS if names else ())))
    own_names = [output.name for output in running.get_outputs()[:own]]
    return [torch.from_numpy(output) for output in running.run([*own_names, *names], {INPUT: images.numpy()})]


def failing_optimizers(model: bytes) -> list[str]:
    """Return the optimizers of onnxruntime that must be left out for the file to open; the others may work on it.

    In 1.32 one moves int8 rounding behind a transposition or reshaping, a later one makes half of what it moved uint8, and the
    types no longer agree. A file that does not open without the first either raises onnxruntime's error when it is run.
    """
    try:
        session(model, threads=1)
    except Exception:  # onnxruntime has a class for each of its codes, and none for all
        return [PROPAGATION]
    return []


def kernels(model: bytes, kinds: dict[str, str]) -> dict[str, dict[str, int]]:
    """Count the kernels that onnxruntime chose: kind of site -> "integer", "weights alone" or "float" -> how many.

    Args:
        model: serialized.
        kinds: site -> kind.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session(model, threads=1, optimized=path)
        chosen = {node.name.partition("/")[0]: node.op_type for node in onnx.load(path).graph.node}
    counts: dict[str, Counter[str]] = {}
    for site, kind in kinds.items():
        counts.setdefault(kind, Counter())[_arithmetic(chosen.get(site))] += 1
    return {kind: dict(of_kind) for kind, of_kind in counts.items()}


@cache
def multiplies_int8_exactly() -> bool:
    """Whether products of uint8 and int8 are exact here, by trying the largest values: x86 without VNNI saturates."""
    size = 64
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "largest",
        [
            helper.make_tensor_value_info("left", TensorProto.UINT8, [size, size]),
            helper.make_tensor_value_info("right", TensorProto.INT8, [size, size]),
        ],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [size, size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    given = {"left": np.full((size, size), 255, np.uint8), "right": np.full((size, size), -128, np.int8)}
    product = np.asarray(session(model.SerializeToString(), threads=1).run(None, given)[0])
    return bool((product == size * 255 * -128).all())


def _arithmetic(operator: str | None) -> str:
    if operator == "MatMulNBits":
        return "weights alone"
    return "integer" if operator in INTEGER else "float"
