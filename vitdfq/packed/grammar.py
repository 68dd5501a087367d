"""The section `quantization_config` of config.json: what is packed, in the grammar of compressed-tensors.

Its own reader parses the section as it is. `quant_method` stays ours: softmax grids, per-head scales and shifts are outside its
types, so it can read every packed weight, but not run the model.
"""

from typing import Any

from torch import nn

import vitdfq
from vitdfq.quantization.modules import named_weighted_modules
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.uniform import Uniform


def quantization_config(student: nn.Module) -> dict[str, Any]:
    """Return the section for a calibrated student. Layers of the same grids share a group; `ignore` names those in float."""
    groups: list[dict[str, Any]] = []
    ignored: list[str] = []
    for name, part in named_weighted_modules(student):
        grids = {"weights": _weights(part.weight_quantizer), "input_activations": _inputs(part.input_quantizer)}
        if grids["weights"] is None:
            ignored.append(name)
        same = next((group for group in groups if {key: group[key] for key in grids} == grids), None)
        if same is None:
            groups.append(same := {"targets": [], **grids})
        same["targets"].append(name)
    groups = [group for group in groups if group["weights"] is not None]
    return {
        "quant_method": "vitdfq",
        "library_version": vitdfq.__version__,
        "bits": student.vitdfq["quantize"]["bits"],
        "modules_to_not_convert": ignored,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ignored,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
    }


def _weights(quantizer: nn.Module) -> dict[str, Any] | None:
    """None: in float."""
    if not isinstance(quantizer, Uniform):
        return None
    return _args(quantizer, quantizer.granularity) | {"group_size": quantizer.group_size}


def _inputs(quantizer: nn.Module) -> dict[str, Any] | None:
    """None: in float, or on a grid that compressed-tensors has no word for."""
    if isinstance(quantizer, TokenUniform):
        return _args(quantizer, "token") | {"dynamic": True}
    return _args(quantizer, "tensor") | {"dynamic": False} if isinstance(quantizer, Uniform) else None


def _args(quantizer: Uniform | TokenUniform, strategy: str) -> dict[str, Any]:
    return {"num_bits": quantizer.bits, "type": "int", "symmetric": quantizer.symmetric, "strategy": strategy}
