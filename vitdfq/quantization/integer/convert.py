"""to_integer(): a copy of a calibrated student whose products are of integers."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from vitdfq.models import require_student
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
        form = integer_form(site)
        if isinstance(form, str):
            report["simulated"][name] = form
            continue
        model.set_submodule(name, form)
        report["integer"][name] = form.int8_products
    record = {key: value for key, value in model.vitdfq.items() if key != "quantize"} | {"integer": report}
    return IntegerStudent(model, record).eval().requires_grad_(False)


def integer_report(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return how the sites of a `to_integer` model run: {"integer": {site: int8 products}, "simulated": {site: why}}.

    A site makes several products where a grid takes several planes of int8 (of a logarithmic one only those whose octaves
    occur are multiplied), or a weight has several groups of columns.

    Raises:
        ValueError: not what `to_integer` returned.
    """
    record = getattr(model, "vitdfq", {})
    if "integer" not in record:
        raise ValueError(f"integer_report takes what to_integer returned, not this {type(model).__name__}")
    return deepcopy(record["integer"])


def integer_form(site: QuantLinear | QuantConv2d | QuantMatMul) -> IntegerLinear | IntegerMatMul | str:
    """Return the module that computes a fitted site with integers, or why there is none."""
    for name, quantizer in site.named_children():
        if isinstance(quantizer, nn.Identity):
            return f"{name} is float"
        if isinstance(quantizer, Logarithmic | Levels) and (planes := planes_needed(quantizer)) > MOST_PLANES:
            kind = f"{type(quantizer).__name__} of {quantizer.bits} bits"
            return f"{name}: {kind} takes {planes} planes of int8, more than {MOST_PLANES}"
    if isinstance(site, QuantMatMul):
        left, right = _codes(site.left_quantizer, site.left_shift), _codes(site.right_quantizer)
        return IntegerMatMul(site, left, right) if right.num_planes == 1 else f"right_quantizer takes {right.num_planes} planes"
    if isinstance(site, QuantLinear):
        return IntegerLinear(site, _codes(site.input_quantizer, site.input_shift))
    return IntegerConv2d(site, _codes(site.input_quantizer)) if site.groups == 1 else f"a convolution in {site.groups} groups"


def _codes(quantizer: Any, shift: Tensor | None = None) -> nn.Module:
    """What turns activations, less a shift, into the int8 planes of a quantizer."""
    shift = shift if shift is not None and shift.any() else None
    if isinstance(quantizer, Uniform):
        return UniformCodes(quantizer, shift)
    if isinstance(quantizer, TokenUniform):
        return TokenCodes(quantizer, shift)
    return LogCodes(quantizer) if isinstance(quantizer, Logarithmic) else TableCodes(quantizer, shift)
