"""Which quantizer stands where: policies by name, and what a policy, roles and overrides add up to at each site."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vitdfq.common.options import OptionError, UnknownOptionError
from vitdfq.models import end_sites, gelu_readers, prefix_tokens
from vitdfq.models.attention import MatMul
from vitdfq.models.untrusted import short
from vitdfq.quantization.options import (
    OPTIONS,
    ROLES,
    Change,
    Grid,
    Roles,
    check_bits,
    check_change,
    check_name,
    gelu_of,
    parse_bits,
)

__all__ = ["OPTIONS", "POLICIES", "ROLES", "check_bits", "check_quantize", "parse_bits", "resolve"]  # recipe reads these

DEFAULT_BITS, DEFAULT_POLICY = "w4a4", "vitdfq"
ARGUMENTS = ("bits", "policy", *ROLES, "overrides")  # of `quantize`


@dataclass(frozen=True)
class Policy:
    """A choice of quantizers, of a paper or this library's own.

    Attributes:
        roles: of the bits of weights and of activations (None: in float).
        ends: what differs at the layers that read the image, a stem among them, and at the classifiers.
        image: what differs at the one layer that reads the image itself.
        products: what differs at the products of attention.
    """

    summary: str
    roles: Callable[[int, int | None], Roles]
    ends: Change = field(default_factory=dict)
    image: Change = field(default_factory=dict)
    products: Change = field(default_factory=dict)


def _vitdfq(weight_bits: int, activation_bits: int | None) -> Roles:
    # Row sums of symmetric weights vanish from the integer product, which is worth more than half a step at 8 bits. Softmax
    # rows average 1/N: a uniform grid of fewer than 8 bits rounds most of them to zero. Two grids, the finer one for small
    # values, err less, and with 4 bits and fewer a logarithmic one, which reaches 2^-14 in whole octaves. At 8 bits, too, two
    # grids err least, but runtimes compute products of one grid only.
    # 8 bits resolve the values of all heads and tokens on one grid; with fewer, heads of small operands, and patches beside a
    # large class token, would have a few levels only.
    if activation_bits is None or activation_bits == 8:
        softmax = "uniform"
    else:
        softmax = "twin_softmax" if activation_bits > 4 else "log2"
    uniform = softmax == "uniform"
    return Roles(
        weight=Grid(weight_bits, symmetric=weight_bits == 8),
        activation=Grid(activation_bits, per_head=not uniform, per_prefix_token=not uniform),
        softmax=Grid(activation_bits, softmax, renormalize=not uniform),
    )


def _vitdfq_dynamic(weight_bits: int, activation_bits: int | None) -> Roles:
    activation = Grid(activation_bits, per_head=True, per_token=True, dynamic_operands=True)
    return replace(_vitdfq(weight_bits, activation_bits), activation=activation)


def _tensorrt(weight_bits: int, activation_bits: int | None) -> Roles:
    return Roles(
        weight=Grid(weight_bits, symmetric=True),
        activation=Grid(activation_bits, symmetric=True),
        softmax=Grid(activation_bits, symmetric=True),
    )


def _repq_vit(weight_bits: int, activation_bits: int | None, *, softmax: str = "log_sqrt2") -> Roles:
    return Roles(
        weight=Grid(weight_bits, observer="percentile"),
        activation=Grid(activation_bits, observer="percentile"),
        softmax=Grid(activation_bits, softmax),
    )


def _sardfq(weight_bits: int, activation_bits: int | None) -> Roles:
    return _repq_vit(weight_bits, activation_bits, softmax="log2")


def _ptq4vit(weight_bits: int, activation_bits: int | None) -> Roles:
    return Roles(
        weight=Grid(weight_bits, symmetric=True, per_channel=False),
        activation=Grid(activation_bits, symmetric=True),
        softmax=Grid(activation_bits, "twin_softmax"),
        gelu={"quantizer": "twin_gelu"},
    )


def _fq_vit(weight_bits: int, activation_bits: int | None) -> Roles:
    return Roles(
        weight=Grid(weight_bits, symmetric=True, observer="min_max"),
        activation=Grid(activation_bits, observer="min_max"),
        softmax=Grid(activation_bits, "log2"),
    )


def _adalog(weight_bits: int, activation_bits: int | None) -> Roles:
    return Roles(
        weight=Grid(weight_bits),
        activation=Grid(activation_bits, per_head=True),
        softmax=Grid(activation_bits, "adalog"),
    )


def _psaq_vit(weight_bits: int, activation_bits: int | None) -> Roles:
    return Roles(
        weight=Grid(weight_bits, symmetric=True, observer="min_max"),
        activation=Grid(activation_bits, observer="min_max"),
        softmax=Grid(None),
    )


OWN_ENDS: Change = {"bits": 8}  # errors there cannot be corrected later, and 8 bits of so few weights cost little

POLICIES: dict[str, Policy] = {
    "vitdfq": Policy(
        "uniform by error, twin or logarithmic softmax with rows renormalized; patch embedding and head at 8 bits",
        _vitdfq,
        ends=OWN_ENDS,
    ),
    "vitdfq_dynamic": Policy(
        "vitdfq with ranges that follow the values: of each token, query and key, and of each head's values",
        _vitdfq_dynamic,
        ends=OWN_ENDS,
    ),
    "openvino": Policy(
        "vitdfq with symmetric operands of attention, whose products OpenVINO then computes in integers",
        _vitdfq,
        ends=OWN_ENDS,
        products={"activation": {"symmetric": True}},
    ),
    "tensorrt": Policy(
        "TensorRT's rules: symmetric, activations per tensor, weights per channel; patch embedding and head at 8 bits",
        _tensorrt,
        ends=OWN_ENDS,
    ),
    "repq_vit": Policy("RepQ-ViT (arXiv 2212.08254): percentiles, log-sqrt2 softmax, all layers at b bits", _repq_vit),
    "sardfq": Policy("SARDFQ (arXiv 2412.16553): percentiles, log2 softmax, all layers at b bits", _sardfq),
    "ptq4vit": Policy(
        "PTQ4ViT (arXiv 2111.12293): symmetric per tensor, twin grids for softmax and GELU, image input in float",
        _ptq4vit,
        image={"activation": {"bits": None}},
    ),
    "fq_vit": Policy("FQ-ViT (arXiv 2111.13824) without its power-of-two factors: min-max, log2 softmax", _fq_vit),
    "adalog": Policy(
        "AdaLog (arXiv 2407.12951) without its GELU quantizer: per-head operands, adaptive base for softmax, image input at 8",
        _adalog,
        image={"activation": {"bits": 8}},
    ),
    "psaq_vit": Policy("PSAQ-ViT (arXiv 2203.02250): min-max, softmax in float", _psaq_vit),
}


@dataclass(frozen=True)
class Places:
    """The sites of a model, by name, at which policies and roles differ."""

    image: frozenset[str]  # the layer that reads the image
    ends: frozenset[str]  # the layers of the first unit, a stem for example, and the classifiers
    gelu: frozenset[str]  # the layers that read GELU's output
    products: frozenset[str]  # the products of attention
    prefix: Mapping[str, int]  # layer -> tokens in front of all patches in its input; others have none

    @classmethod
    def of(cls, model: nn.Module) -> "Places":
        """Look them up in a float model's family."""
        ends = end_sites(model)
        image, both = frozenset(ends.embedding[:1]), frozenset((*ends.embedding, *ends.head))
        products = frozenset(name for name, part in model.named_modules() if isinstance(part, MatMul))
        gelu = frozenset(gelu_readers(model))
        return cls(image=image, ends=both, gelu=gelu, products=products, prefix=prefix_tokens(model))


@dataclass(frozen=True)
class Choice:
    """A policy at given bits, changed by role, and overrides by glob, in order."""

    roles: Roles
    ends: Change
    image: Change
    products: Change
    overrides: Mapping[str, Change]

    def at(self, site: str, places: Places) -> Roles:
        """Return the roles at a site: the policy's, then every override whose glob matches; the later ones win."""
        reads_gelu = site in places.gelu
        roles = self.roles.for_gelu(self.roles.gelu) if reads_gelu else self.roles
        changes = [self.ends] * (site in places.ends) + [self.image] * (site in places.image)
        changes += [self.products] * (site in places.products)
        for change in changes + [change for glob, change in self.overrides.items() if matches(site, glob)]:
            roles = roles.changed(change)
            if reads_gelu:
                roles = roles.for_gelu(gelu_of(change))
        return roles


def resolve(arguments: Mapping[str, Any]) -> Choice:
    """Return the choice that arguments of `quantize` make.

    Raises:
        OptionError: as `check_quantize`.
    """
    check_quantize(arguments)
    weight_bits, activation_bits = parse_bits(arguments.get("bits", DEFAULT_BITS))
    policy = POLICIES[arguments.get("policy", DEFAULT_POLICY)]
    ends, image = policy.ends, policy.image
    if activation_bits is None:  # a16 leaves all activations in float, also where a policy has other bits
        ends, image = ({"weight": {"bits": change["bits"]}} if "bits" in change else {} for change in (ends, image))
    roles = policy.roles(weight_bits, activation_bits).changed({role: arguments.get(role) for role in ROLES})
    return Choice(roles, ends, image, policy.products, arguments.get("overrides") or {})


def matches(site: str, glob: str) -> bool:
    """Whether a glob means a site; "head.*" means also a `head` that is no container but the site itself."""
    return fnmatchcase(site, glob) or (glob.endswith(".*") and fnmatchcase(site, glob.removesuffix(".*")))


def check_quantize(arguments: Mapping[str, Any]) -> None:
    """Check keyword arguments of `quantize`, which may come out of a file, without a model.

    Raises:
        OptionError: an unknown argument, option or name, bits outside 2..8, or a value of another type; the first one found.
    """
    for name in arguments:
        if name not in ARGUMENTS:
            raise UnknownOptionError((name,), ARGUMENTS)
    try:
        parse_bits(arguments.get("bits", DEFAULT_BITS))
    except ValueError as error:
        raise OptionError(("bits",), str(error)) from None
    try:
        check_name(arguments.get("policy", DEFAULT_POLICY), POLICIES, "quantization policy")
    except ValueError as error:
        raise OptionError(("policy",), str(error)) from None
    for role in ROLES:
        if arguments.get(role) is not None:
            check_change(arguments[role], role, (role,))
    overrides = arguments.get("overrides")
    if overrides is not None and not isinstance(overrides, Mapping):
        raise OptionError(("overrides",), f"{short(overrides)} is not a mapping of globs")
    for glob, change in (overrides or {}).items():
        _check_override(glob, change)


def _check_override(glob: Any, change: Any) -> None:
    keys = ("overrides", glob)
    if not isinstance(glob, str):
        raise OptionError(("overrides",), f"{short(glob)} is not a glob on names of sites")
    if not isinstance(change, Mapping):
        raise OptionError(keys, f"{short(change)} is not a mapping of options")
    for name, value in change.items():
        if name == "bits":
            try:
                check_bits(value)
            except ValueError as error:
                raise OptionError((*keys, name), str(error)) from None
        elif name in ROLES:
            check_change(value, name, (*keys, name))
        else:
            raise UnknownOptionError((*keys, name), ("bits", *ROLES))
