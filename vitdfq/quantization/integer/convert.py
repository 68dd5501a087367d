"""to_integer(): a copy of a calibrated student whose products are of integers."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from vitdfq.models.kinds import require_student
from vitdfq.quantization.fitted import require_fitted
from vitdfq.quantization.integer.codes import TokenCodes, UniformCodes
from vitdfq.quantization.integer.layers import IntegerConv2d, IntegerLinear, IntegerMatMul
from vitdfq.quantization.integer.model import IntegerStudent
from vitdfq.quantization.integer.tables import LogCodes, TableCodes, planes_needed
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.levels import Levels
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.uniform import Uniform

MOST_PLANES = 10  # of int8 take as long as the float product that they replace


def to_integer(student: nn.Module) -> nn.Module:
    """Return a copy of `student` that multiplies integers: `copy(x)` gives the same logits up to float rounding, and faster.

    Linear layers, convolutions and the two products of attention multiply int8 codes and sum them in int32 (small matrices:
    in a float type in which every sum is exact). Scales, biases, norms, softmax, GELU and rotations at run time stay in
    float32. Codes are those of the student, bit for bit, for the same input to a site; an activation within float rounding of
    a boundary between two codes may get the other one, once sites before it have rounded differently.

    What has no integer form stays as it is in the student, simulated; `integer_report` says which sites and why. The copy
    runs on the student's device, keeps no gradients, and cannot be saved or calibrated: keep the student for that.

    Raises:
        ValueError: not what `quantize` returned, or not calibrated yet.
    """
    require_student(student, "to_integer")
    require_fitted(student, "to_integer", "calibrate the student first")
    model = deepcopy(student)
    report: dict[str, dict[str, Any]] = {"integer": {}, "simulated": {}}
    for name, site in list(model.named_modules()):
        if not isinstance(site, QuantLinear | QuantConv2d | QuantMatMul):
            continue
        if reason := _why_simulated(site):
            report["simulated"][name] = reason
            continue
        integer = _integer_product(site) if isinstance(site, QuantMatMul) else _integer_layer(site)
        model.set_submodule(name, integer)
        report["integer"][name] = integer.int8_products
    record = {key: value for key, value in model.vitdfq.items() if key != "quantize"} | {"integer": report}
    return IntegerStudent(model, record).eval().requires_grad_(False)


def integer_report(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return how the sites of a `to_integer` model run: {"integer": {site: int8 products}, "simulated": {site: why}}.

    A site makes several products where a grid takes several planes of int8, or a weight has several groups of columns.

    Raises:
        ValueError: not what `to_integer` returned.
    """
    record = getattr(model, "vitdfq", {})
    if "integer" not in record:
        raise ValueError(f"integer_report takes what to_integer returned, not this {type(model).__name__}")
    return deepcopy(record["integer"])


def _why_simulated(site: QuantLinear | QuantConv2d | QuantMatMul) -> str | None:
    """Return why a site has no integer form; None if it has one."""
    for name, quantizer in site.named_children():
        if isinstance(quantizer, nn.Identity):
            return f"{name} is float"
        if isinstance(quantizer, Logarithmic | Levels) and (planes := planes_needed(quantizer)) > MOST_PLANES:
            kind = f"{type(quantizer).__name__} of {quantizer.bits} bits"
            return f"{name}: {kind} takes {planes} planes of int8, more than {MOST_PLANES}"
    if isinstance(site, QuantConv2d) and site.groups > 1:
        return f"a convolution in {site.groups} groups"
    return None


def _integer_layer(layer: QuantLinear | QuantConv2d) -> IntegerLinear:
    if isinstance(layer, QuantConv2d):
        return IntegerConv2d(layer, _codes(layer.input_quantizer))
    return IntegerLinear(layer, _codes(layer.input_quantizer, layer.input_shift))


def _integer_product(product: QuantMatMul) -> IntegerMatMul:
    return IntegerMatMul(product, _codes(product.left_quantizer, product.left_shift), _codes(product.right_quantizer))


def _codes(quantizer: Any, shift: Tensor | None = None) -> nn.Module:
    """What turns activations, less a shift, into the int8 planes of a quantizer."""
    shift = shift if shift is not None and shift.any() else None
    if isinstance(quantizer, Uniform):
        return UniformCodes(quantizer, shift)
    if isinstance(quantizer, TokenUniform):
        return TokenCodes(quantizer, shift)
    return LogCodes(quantizer) if isinstance(quantizer, Logarithmic) else TableCodes(quantizer, shift)
