"""quantize(): a copy of a model with quantizers in place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from vitdfq.common.gradients import with_gradients
from vitdfq.models import require_float, warn_if_changed
from vitdfq.models.attention import MatMul, Product
from vitdfq.models.sites import put, sites
from vitdfq.quantization.fitted import refuse_until_fitted
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul, QuantSite
from vitdfq.quantization.options import Grid, Roles
from vitdfq.quantization.policy import DEFAULT_BITS, DEFAULT_POLICY, Places, matches, resolve
from vitdfq.quantization.quantizers import QUANTIZERS, quantizer_class
from vitdfq.quantization.quantizers.base import Quantizer, Unquantized
from vitdfq.quantization.quantizers.uniform import weight_shape
from vitdfq.quantization.role_check import check_layer, check_product


@with_gradients
def quantize(
    model: nn.Module,
    *,
    bits: str = DEFAULT_BITS,
    policy: str = DEFAULT_POLICY,
    weight: dict[str, Any] | None = None,
    activation: dict[str, Any] | None = None,
    gelu: dict[str, Any] | None = None,
    softmax: dict[str, Any] | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> nn.Module:
    """Return a copy of `model` with a quantizer at every weight, linear input and attention operand; `model` is not changed.

    A Linear or Conv2d without bias gets one of zeros in the copy. Until it is calibrated, a pass of the copy raises ValueError.

    Args:
        model: a model that `load_teacher` or `prepare` returned.
        bits: of weights, 2 to 8, and of activations, 2 to 8: "w4a4" for example. "w4a16" and "w4a32" both quantize the weights
            alone: activations, softmax and GELU's output stay in the model's float type.
        policy: which quantizers, one of `POLICIES`. "vitdfq": weights per output channel, static activations, per tensor at
            8 bits, below with scales by head and by prefix token and logarithmic softmax output with renormalized rows; patch
            embedding and head stay at 8 bits.
            "vitdfq_dynamic": the same with ranges that follow the values: of each token, query and key, of each head's values.
            "openvino": "vitdfq" with symmetric operands of attention. "tensorrt": symmetric grids alone, per tensor and channel.
        weight, activation, gelu, softmax: change the policy for a role: `{"bits": 6}`, `{"quantizer": "log_sqrt2"}`,
            `{"observer": "percentile"}`; weights also `per_channel` and `group_size`; activations `per_token` (dynamic, inputs
            of linear layers), `dynamic_operands` (of attention), `per_prefix_token` (class token and registers have
            scales of their own) and `per_head` (operands of attention). "gelu" changes "activation" for layers that read
            GELU's output.
        overrides: change it for sites by glob, in order, after the policy's own: `{"blocks.0.*": {"bits": 8}}`,
            `{"*.fc2": {"activation": {"bits": 6}}}`; "head.*" means `head` too; bits None leaves a role in float.

    Raises:
        ValueError: a model not loaded by this library, or quantized already; unknown bits, policy, option or quantizer; bits
            outside 2..8; a glob that matches no site; options that do not go together, with the site.
    """
    require_float(model, "quantize")
    warn_if_changed(model, "quantize")
    changes = {"weight": weight, "activation": activation, "gelu": gelu, "softmax": softmax}
    record = {"bits": bits, "policy": policy, **changes, "overrides": overrides or {}}
    choice = resolve(record)
    student: Any = deepcopy(model)
    modules = sites(student)
    for glob in choice.overrides:
        if not any(matches(name, glob) for name in modules):
            raise ValueError(f"overrides: {glob!r} matches no site; sites look like {', '.join(_examples(modules))}")
    places = Places.of(student)
    for name, module in modules.items():
        roles = choice.at(name, places)
        with _naming(name):
            if isinstance(module, MatMul):
                owner, _, product = name.rpartition(".")
                attention: Any = student.get_submodule(owner)
                site = _quantized_product(attention.products[product], next(student.parameters()), roles)
            else:
                site = _quantized_layer(module, roles, reads_gelu=name in places.gelu, prefix=places.prefix.get(name, 0))
        put(student, name, site)
    student.vitdfq["quantize"] = deepcopy(record)  # later changes of the caller's mappings do not reach it
    refuse_until_fitted(student)
    return student.to(next(model.parameters()).device)  # quantizers are built on the CPU


def _quantized_product(facts: Product, like: Tensor, roles: Roles) -> QuantSite:
    """The site of a product in an opened attention: q @ k, p @ v where it reads softmax, or another."""
    check_product(roles, reads_softmax=facts.reads_softmax)
    operand = roles.activation
    heads = facts.num_heads
    right = "matrix" if facts.reads_softmax else "column"  # a product sums over its values, which thus share a scale
    if facts.reads_softmax:
        softmax = roles.softmax
        renormalize = softmax.renormalize and softmax.bits is not None
        return QuantMatMul(_build(softmax), _build_operand(operand, heads, right), renormalize=renormalize)
    no_shift = None if heads is None or facts.key_dim is None else like.new_zeros(heads, 1, facts.key_dim)
    left = _build_operand(operand, heads, "token")
    return QuantMatMul(left, _build_operand(operand, heads, right), left_shift=no_shift)


def _quantized_layer(layer: nn.Linear | nn.Conv2d, roles: Roles, *, reads_gelu: bool, prefix: int) -> QuantSite:
    check_layer(roles, reads_gelu=reads_gelu)
    if layer.bias is None:  # calibration changes biases
        layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=False)
    weight, inputs = roles.weight, roles.activation
    shape: tuple[int, ...] = ()
    if weight.bits is not None and weight.per_channel and "channel" in quantizer_class(weight.quantizer).granularities:
        rows, columns = layer.weight.flatten(1).shape
        shape = weight_shape(rows, columns, weight.group_size)
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d(layer, _build(weight, shape), _build(inputs))
    return QuantLinear(layer, _build(weight, shape), _build_for_tokens(inputs, prefix))


def _build(grid: Grid, shape: tuple[int, ...] = ()) -> Quantizer:
    """The quantizer of a grid, with settings of this shape."""
    if grid.bits is None:
        return Unquantized()
    given = grid.given()
    arguments = {name: given[name] for name in quantizer_class(grid.quantizer).options if name in given}
    return QUANTIZERS[grid.quantizer](grid.bits, shape=shape, **arguments)


def _build_for_tokens(grid: Grid, prefix: int) -> Quantizer:
    """The quantizer of tokens (..., C) by a grid; the first `prefix` of each image are no patches."""
    kind: Any = quantizer_class(grid.quantizer)
    if grid.bits is not None and grid.per_token and kind.dynamic is not None:
        return kind.dynamic(grid.bits, **_symmetric_and_observer(grid))
    if grid.bits is not None and grid.per_prefix_token and prefix and kind.by_prefix is not None:
        return kind.by_prefix(grid.bits, prefix=prefix, **_symmetric_and_observer(grid))
    return _build(grid)


def _build_operand(grid: Grid, heads: int | None, along: str) -> Quantizer:
    """The quantizer of an operand (..., heads, N, C) of attention by a grid; `along` says which values share a dynamic range."""
    kind: Any = quantizer_class(grid.quantizer)
    if grid.bits is not None and grid.dynamic_operands and kind.dynamic is not None:
        return kind.dynamic(grid.bits, along=along, **_symmetric_and_observer(grid))
    return _build(grid, (heads, 1, 1) if grid.per_head and heads is not None else ())


def _symmetric_and_observer(grid: Grid) -> dict[str, Any]:
    return {name: value for name, value in grid.given().items() if name in ("symmetric", "observer")}


@contextmanager
def _naming(site: str) -> Iterator[None]:
    """Put the site in front of the message of a ValueError inside the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{site}: {error}") from error


def _examples(sites: Mapping[str, nn.Module]) -> list[str]:
    names = list(sites)
    return names[:5] + names[-1:]
