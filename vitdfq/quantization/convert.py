"""quantize(): a copy of a model with quantizers in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn

from vitdfq.models.attention import MatMul
from vitdfq.models import require_float
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul
from vitdfq.quantization.policy import Roles, check_override, matches, resolve, site_roles
from vitdfq.quantization.quantizers import QUANTIZERS
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.uniform import weight_shape
from vitdfq.quantization.role_check import check_layer, check_product


def quantize(
    model: nn.Module,
    *,
    bits: str = "w4a4",
    policy: str = "vitdfq",
    weight: dict[str, Any] | None = None,
    activation: dict[str, Any] | None = None,
    gelu: dict[str, Any] | None = None,
    softmax: dict[str, Any] | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> nn.Module:
    """Return a copy of `model` with a quantizer at every weight, linear input and attention operand; `model` is untouched.

    A Linear or Conv2d without bias gets one of zeros in the copy.

    Args:
        model: what `load_teacher` or `prepare` returned.
        bits: of weights and activations, "w4a4" for example, 2 to 8 each.
        policy: which quantizers, one of `POLICIES`. "vitdfq": weights per output channel, activations static per tensor,
            logarithmic softmax output with renormalised rows below 8 bits; patch embedding and head stay at 8 bits.
        weight, activation, gelu, softmax: change the policy for a role: `{"bits": 6}`, `{"quantizer": "log_sqrt2"}`,
            `{"observer": "percentile"}`; weights also `per_channel` and `group_size`; activations `per_token` (dynamic, inputs
            of linear layers) and `per_head` (operands of attention). "gelu" changes "activation" for what reads GELU's output.
        overrides: change it for sites by glob, in order, after the policy's own: `{"blocks.0.*": {"bits": 8}}`,
            `{"*.fc2": {"activation": {"bits": 6}}}`; "head.*" means `head` too; bits None leaves a role in float.

    Raises:
        ValueError: a model not loaded by this library, or quantized already; unknown preset, option or quantizer; bits outside
            2..8; a glob that matches no site; options that do not go together, with the site.
    """
    require_float(model, "quantize")
    base, own_overrides = resolve(bits, policy, weight=weight, activation=activation, gelu=gelu, softmax=softmax)
    overrides = overrides or {}
    student = deepcopy(model)
    found = sites(student)
    for glob, change in overrides.items():
        check_override(glob, change)
        if not any(matches(name, glob) for name in found):
            raise ValueError(f"overrides: {glob!r} matches no site; sites look like {', '.join(_examples(found))}")
    for name, module in found.items():
        roles = site_roles(name, base, [*own_overrides, *overrides.items()])
        with _naming(name):
            quantized = (
                _quantized_product(student, name, roles) if isinstance(module, MatMul) else _quantized_layer(module, name, roles)
            )
        student.set_submodule(name, quantized)
    record = {
        "bits": bits,
        "policy": policy,
        "weight": weight,
        "activation": activation,
        "gelu": gelu,
        "softmax": softmax,
        "overrides": overrides,
    }
    student.vitdfq["quantize"] = deepcopy(record)  # the caller's mappings stay the caller's
    return student.to(next(model.parameters()).device)  # quantizers are built on the CPU


def sites(model: nn.Module) -> dict[str, nn.Module]:
    """Return every place that `quantize` swaps, by name: Linear, Conv2d and the two products of attention."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d | MatMul)}


def _quantized_product(student: Any, name: str, roles: Roles) -> QuantMatMul:
    """q @ k or p @ v of the attention that holds the site `name`."""
    check_product(name, roles)
    operand = roles["activation"] | {"per_token": False}  # a key's tokens are the columns of the transposed operand
    attention = student.get_submodule(name.rpartition(".")[0])
    shape = (attention.num_heads, 1, 1) if operand.pop("per_head", False) else ()
    if name.endswith(".av"):
        softmax = roles["softmax"]
        renormalize = softmax.pop("renormalize", False) and softmax["bits"] is not None
        return QuantMatMul(_build(softmax), _build(operand, shape), renormalize=renormalize)
    no_shift = next(attention.parameters()).new_zeros(attention.num_heads, 1, attention.key_dim)
    return QuantMatMul(_build(operand, shape), _build(operand, shape), left_shift=no_shift)


def _quantized_layer(layer: nn.Linear | nn.Conv2d, name: str, roles: Roles) -> QuantLinear | QuantConv2d:
    check_layer(name, roles)
    if layer.bias is None:  # calibration moves biases, and needs one to move
        layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=False)
    weight, rows = roles["weight"], layer.weight.flatten(1)
    per_channel = weight.pop("per_channel", True)
    if weight["bits"] is None:
        weight.pop("group_size", None)
    shape = weight_shape(*rows.shape, weight.get("group_size")) if per_channel else ()
    weight_quantizer = _build(weight, shape)
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d(layer, weight_quantizer, _build(roles["activation"] | {"per_token": False}))
    return QuantLinear(layer, weight_quantizer, _build(roles["activation"]))


def _build(options: dict[str, Any], shape: tuple[int, ...] = ()) -> nn.Module:
    """The quantizer that the options of a role name; Identity for no bits."""
    options = {key: value for key, value in options.items() if key != "per_head"}
    bits, name, per_token = options.pop("bits"), options.pop("quantizer"), options.pop("per_token", False)
    if bits is None:
        return nn.Identity()
    if per_token:
        return TokenUniform(bits, symmetric=options.get("symmetric", False))
    return QUANTIZERS[name](bits, shape=shape, **options)


@contextmanager
def _naming(site: str) -> Iterator[None]:
    """Say at which site a quantizer cannot be built."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{site}: {error}") from error


def _examples(found: dict[str, nn.Module]) -> list[str]:
    names = list(found)
    return names[:5] + names[-1:]
