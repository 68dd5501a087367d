"""onnxruntime: running a model as PyTorch computes it, and which of its sites run as integers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import torch
from torch import Tensor

from vitdfq.onnx.trace import INPUT, OUTPUT

INTEGER = ("MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger")
# Weights of 4 bits alone are else multiplied by rounded activations: off by hundredths of the output.
EXACT = {"session.qdq_matmulnbits_accuracy_level": "1"}
# Rounds a product already as its reader would: nothing changes, but what is seen in between.
BACKWARDS = ("QDQPropagationTransformer",)


def session(
    model: bytes, threads: int = 0, optimized: Path | None = None, without: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    """Return a CPU session.

    Args:
        model: serialized.
        threads: 0 for as many as there are cores.
        optimized: where to write the graph that is run.
        without: optimizers of onnxruntime that are left out.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in EXACT.items():
        options.add_session_config_entry(key, value)
    if optimized is not None:  # without what is particular to this processor, which says nothing of integers
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=set(without))


def outputs(model: bytes, images: Tensor, names: Sequence[str] = ()) -> list[Tensor]:
    """Return the logits (B, classes) of normalised images (B, 3, H, W), and the other outputs that are named."""
    running = session(model, without=BACKWARDS if names else ())
    return [torch.from_numpy(output) for output in running.run([OUTPUT, *names], {INPUT: images.numpy()})]


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
    found: dict[str, Counter[str]] = {}
    for site, kind in kinds.items():
        found.setdefault(kind, Counter())[_arithmetic(chosen.get(site))] += 1
    return {kind: dict(counts) for kind, counts in found.items()}


def _arithmetic(operator: str | None) -> str:
    if operator == "MatMulNBits":
        return "weights alone"
    return "integer" if operator in INTEGER else "float"
