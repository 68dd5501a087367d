"""to_integer(): a copy of a calibrated student whose products are of integers."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from vitdfq.models import require_student
from vitdfq.models.sites import put
from vitdfq.quantization.fitted import require_fitted
from vitdfq.quantization.integer.codes import AffineCodes, Codes, TokenCodes
from vitdfq.quantization.integer.fused import fuse_blocks
from vitdfq.quantization.integer.layers import IntegerConv2d, IntegerLinear, IntegerMatMul, IntegerStudent
from vitdfq.quantization.integer.tables import LogCodes, TableCodes
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul, QuantSite, named_sites
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine, IntegerForm, Octaves, TokenAffine

MOST_PLANES = 10  # of int8 take as long as the float product that they replace


def to_integer(student: nn.Module) -> nn.Module:
    """Return a copy of `student` that multiplies integers: `copy(x)` gives the same logits up to float rounding, and faster.

    Linear layers, convolutions and the two products of attention multiply int8 codes and sum them in int32 (small matrices:
    in a float type in which every sum is exact). Scales, biases, norms, softmax, GELU and rotations at run time stay in
    float32. Codes equal those of the student, bit for bit, for the same input of a site; an activation within float rounding of
    a boundary between two codes may get the other one where earlier sites have rounded differently.

    Blocks of ViTs without LayerScale (`prepare` folds it) run on x86 processors with AVX2 by kernels (`fused/`). These are
    compiled at the first pass and kept in the user's cache; without a C compiler, and for grids of other kinds, sites run one
    by one. The kernels multiply attention's rows of a logarithmic grid, but for log2 of four bits, as float32 levels, and those
    of a twin grid as int16; a twin grid of 8 bits whose split is below 2^-8 runs site by site.

    A site without an integer form stays as in the student, simulated; `integer_report` names these sites, with the reasons. The
    copy runs on the student's device, keeps no gradients, and cannot be saved or calibrated: keep the student for that.

    Raises:
        ValueError: not a model that `quantize` returned, or not calibrated yet.
    """
    require_student(student, "to_integer")
    require_fitted(student, "to_integer", "calibrate the student first")
    model: Any = deepcopy(student)
    report: dict[str, dict[str, Any]] = {"integer": {}, "simulated": {}}
    for name, site in named_sites(model).items():
        form = integer_form(site)
        if isinstance(form, str):
            report["simulated"][name] = form
            continue
        put(model, name, form)
        report["integer"][name] = form.int8_products
    fuse_blocks(model)
    record = {key: value for key, value in model.vitdfq.items() if key != "quantize"} | {"integer": report}
    return IntegerStudent(model, record).eval().requires_grad_(False)


def integer_report(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return how the sites of a `to_integer` model run: {"integer": {site: int8 products}, "simulated": {site: reason}}.

    A site makes several products where a grid takes several planes of int8 (of a logarithmic grid only planes whose octaves
    occur are multiplied), or a weight has several groups of columns.

    Raises:
        ValueError: not a model that `to_integer` returned.
    """
    record: Any = getattr(model, "vitdfq", {})
    if "integer" not in record:
        raise ValueError(f"integer_report takes what to_integer returned, not this {type(model).__name__}")
    return deepcopy(record["integer"])


def integer_form(site: QuantSite) -> IntegerLinear | IntegerMatMul | str:
    """Return the module that computes a fitted site with integers, or the reason why there is none."""
    forms: dict[str, IntegerForm] = {}
    for name, quantizer in site.quantizers.items():
        form = quantizer.affine if name == "weight_quantizer" else quantizer.int8_planes()
        if form is None:
            return f"{name} is float" if quantizer.bits is None else f"{name}: {type(quantizer).__name__} has no int8 form"
        if form.num_planes > MOST_PLANES:
            kind = f"{type(quantizer).__name__} of {quantizer.bits} bits"
            return f"{name}: {kind} takes {form.num_planes} planes of int8, more than {MOST_PLANES}"
        forms[name] = form
    if isinstance(site, QuantMatMul):
        left, right = forms["left_quantizer"], forms["right_quantizer"]
        if right.num_planes > 1:
            return f"right_quantizer takes {right.num_planes} planes"
        left_codes = _codes(site.left_quantizer, left, site.left_shift)
        return IntegerMatMul(site, left_codes, _codes(site.right_quantizer, right))
    if isinstance(site, QuantConv2d):
        if site.groups > 1:
            return f"a convolution in {site.groups} groups"
        return IntegerConv2d(site, _codes(site.input_quantizer, forms["input_quantizer"]))
    assert isinstance(site, QuantLinear)
    return IntegerLinear(site, _codes(site.input_quantizer, forms["input_quantizer"], site.input_shift))


def _codes(quantizer: Quantizer, form: IntegerForm, shift: Tensor | None = None) -> Codes:
    """The module that turns activations, less a shift, into the int8 planes of a quantizer."""
    shift = shift if shift is not None and shift.any() else None
    match form:
        case Affine():
            return AffineCodes(form, shift)
        case TokenAffine():
            return TokenCodes(quantizer, form, shift)
        case Octaves():
            return LogCodes(quantizer, form, shift)
        case _:
            return TableCodes(quantizer, form, shift)
