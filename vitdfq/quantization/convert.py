"""quantize(): a copy of a model with quantizers in place."""

from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vitdfq.models.attention import MatMul
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul
from vitdfq.quantization.policy import DEFAULT_OVERRIDES, Policy, check_override, resolve_base, site_policy
from vitdfq.quantization.quantizers import QUANTIZERS


def quantize(
    model: nn.Module,
    *,
    bits: str = "w4a4",
    weight: dict[str, Any] | None = None,
    activation: dict[str, Any] | None = None,
    softmax: dict[str, Any] | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> nn.Module:
    """Return a copy of `model` with a quantizer at every weight, linear input and attention operand; `model` is untouched.

    Args:
        model: what `load_teacher` or `prepare` returned.
        bits: preset policy, e.g. "w4a4": 4-bit weights per output channel, 4-bit activations per tensor, log2 softmax output;
            the image input and the head stay at 8 bits.
        weight, activation, softmax: change the preset for a role: `{"bits": 6}`, `{"quantizer": "log_sqrt2"}`, ...
        overrides: change it for sites by glob, in order: `{"blocks.0.*": {"bits": 8}}`, `{"*.fc2": {"activation": {"bits": 6}}}`;
            bits None leaves a role in float.

    Raises:
        ValueError: unknown preset, option or quantizer; bits outside 2..8; a glob that matches no site.
    """
    base = resolve_base(bits, weight=weight, activation=activation, softmax=softmax)
    overrides = overrides or {}
    student = deepcopy(model)
    found = sites(student)
    for glob, change in overrides.items():
        check_override(glob, change)
        if not any(fnmatchcase(name, glob) for name in found):
            raise ValueError(f"overrides: {glob!r} matches no site; sites look like {', '.join(_examples(found))}")
    for name, module in found.items():
        policy = site_policy(name, base, DEFAULT_OVERRIDES | overrides)
        student.set_submodule(name, _with_quantizers(name, module, policy))
    student.vitdfq["quantize"] = {
        "bits": bits,
        "weight": weight,
        "activation": activation,
        "softmax": softmax,
        "overrides": overrides,
    }
    return student


def sites(model: nn.Module) -> dict[str, nn.Module]:
    """Return every place that `quantize` swaps, by name: Linear, Conv2d and the two products of attention."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d | MatMul)}


def _with_quantizers(name: str, module: nn.Module, policy: Policy) -> nn.Module:
    if isinstance(module, MatMul):
        if name.endswith(".av"):
            options = dict(policy["softmax"])
            renormalize = options.pop("renormalize") and options["bits"] is not None
            return QuantMatMul(_build(options), _build(policy["activation"]), renormalize)
        return QuantMatMul(_build(policy["activation"]), _build(policy["activation"]))
    weight_quantizer = _build(policy["weight"], shape=(module.weight.shape[0], 1))
    input_quantizer = _build(policy["activation"])
    kind = QuantConv2d if isinstance(module, nn.Conv2d) else QuantLinear
    return kind(module, weight_quantizer, input_quantizer)


def _build(options: dict[str, Any], shape: tuple[int, ...] = ()) -> nn.Module:
    options = dict(options)
    bits, name = options.pop("bits"), options.pop("quantizer")
    if name != "uniform":
        options.pop("symmetric", None)  # a preset's option of the uniform grid, replaced by name
    return nn.Identity() if bits is None else QUANTIZERS[name](bits, shape=shape, **options)


def _examples(found: dict[str, nn.Module]) -> list[str]:
    names = list(found)
    return names[:5] + names[-1:]
