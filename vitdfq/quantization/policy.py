"""Which quantizer sits where: policies by name, a number of bits, changes by role, and overrides by glob on site names."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from vitdfq.common.lookup import did_you_mean, lookup
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers import QUANTIZERS

Roles = dict[str, dict[str, Any]]  # role -> {"bits", "quantizer", options of that quantizer or of its place}
Override = tuple[str, dict[str, Any]]  # (glob, what changes where it matches)
ROLES = ("weight", "activation", "gelu", "softmax")
_GRID = ("bits", "quantizer", "symmetric", "observer")
OPTIONS = {  # role -> what may be said about it
    "weight": (*_GRID, "per_channel", "group_size"),
    "activation": (*_GRID, "per_head", "per_token"),
    "gelu": (*_GRID, "per_token"),
    "softmax": (*_GRID, "renormalize"),
}
UNIFORM_ONLY = ("symmetric", "observer")  # options that other grids do not have
GELU_SITES = "*.fc2"  # what reads GELU's output; the role "gelu" changes the role "activation" there
BITS = {"w8a8": (8, 8), "w6a6": (6, 6), "w4a8": (4, 8), "w4a4": (4, 4), "w3a3": (3, 3)}


@dataclass(frozen=True)
class Policy:
    """A published or own choice of quantizers. `roles(weight_bits, activation_bits)`; `overrides` by glob, as in `quantize`."""

    summary: str
    roles: Callable[[int, int], Roles]
    overrides: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def _uniform(bits: int, **options: Any) -> dict[str, Any]:
    return {"bits": bits, "quantizer": "uniform", "symmetric": False} | options


def _vitdfq(weight_bits: int, activation_bits: int) -> Roles:
    # Row sums of symmetric weights vanish from the integer product, which is worth more than half a step at 8 bits. Softmax
    # rows average 1/N: a uniform grid of fewer than 8 bits rounds most of them to zero. A logarithmic one reaches
    # 2^-14 with 4 bits in whole octaves, and from 5 bits on in half octaves too, with half the relative error.
    logarithmic = activation_bits < 8
    octaves = "log2" if activation_bits < 5 else "log_sqrt2"
    return {
        "weight": _uniform(weight_bits, symmetric=weight_bits == 8),
        "activation": _uniform(activation_bits),
        "softmax": {
            "bits": activation_bits,
            "quantizer": octaves if logarithmic else "uniform",
            "renormalize": logarithmic,
        },
    }


def _repq_vit(weight_bits: int, activation_bits: int) -> Roles:
    return {
        "weight": _uniform(weight_bits, observer="percentile"),
        "activation": _uniform(activation_bits, observer="percentile"),
        "softmax": {"bits": activation_bits, "quantizer": "log_sqrt2"},
    }


def _sardfq(weight_bits: int, activation_bits: int) -> Roles:
    return _repq_vit(weight_bits, activation_bits) | {"softmax": {"bits": activation_bits, "quantizer": "log2"}}


def _ptq4vit(weight_bits: int, activation_bits: int) -> Roles:
    return {
        "weight": _uniform(weight_bits, symmetric=True, per_channel=False),
        "activation": _uniform(activation_bits, symmetric=True),
        "gelu": {"quantizer": "twin_gelu"},
        "softmax": {"bits": activation_bits, "quantizer": "twin_softmax"},
    }


def _fq_vit(weight_bits: int, activation_bits: int) -> Roles:
    return {
        "weight": _uniform(weight_bits, symmetric=True, observer="min_max"),
        "activation": _uniform(activation_bits, observer="min_max"),
        "softmax": {"bits": activation_bits, "quantizer": "log2"},
    }


def _adalog(weight_bits: int, activation_bits: int) -> Roles:
    return {
        "weight": _uniform(weight_bits),
        "activation": _uniform(activation_bits, per_head=True),
        "softmax": {"bits": activation_bits, "quantizer": "adalog"},
    }


def _psaq_vit(weight_bits: int, activation_bits: int) -> Roles:
    return {
        "weight": _uniform(weight_bits, symmetric=True, observer="min_max"),
        "activation": _uniform(activation_bits, observer="min_max"),
        "softmax": {"bits": None, "quantizer": "uniform"},
    }


# What the rest cannot repair costs little: 8 bits. A stem of convolutions (LeViT) is a patch embedding.
_ENDS = {"patch_embed.proj": {"bits": 8}, "stem.*": {"bits": 8}, "head*": {"bits": 8}}
_IMAGE_READERS = ("patch_embed.proj", "stem.conv1.linear")
POLICIES: dict[str, Policy] = {
    "vitdfq": Policy(
        "uniform by error, logarithmic softmax with rows renormalised; patch embedding and head at 8 bits", _vitdfq, _ENDS
    ),
    "repq_vit": Policy("RepQ-ViT (arXiv 2212.08254): percentiles, log-sqrt2 softmax, all layers at b bits", _repq_vit),
    "sardfq": Policy("SARDFQ (arXiv 2412.16553): percentiles, log2 softmax, all layers at b bits", _sardfq),
    "ptq4vit": Policy(
        "PTQ4ViT (arXiv 2111.12293): symmetric per tensor, twin grids for softmax and GELU, image input in float",
        _ptq4vit,
        {name: {"activation": {"bits": None}} for name in _IMAGE_READERS},
    ),
    "fq_vit": Policy("FQ-ViT (arXiv 2111.13824) without its power-of-two factors: min-max, log2 softmax", _fq_vit),
    "adalog": Policy(
        "AdaLog (arXiv 2407.12951) without its GELU quantizer: per-head operands, adaptive base for softmax, image input at 8",
        _adalog,
        {name: {"activation": {"bits": 8}} for name in _IMAGE_READERS},
    ),
    "psaq_vit": Policy("PSAQ-ViT (arXiv 2203.02250): min-max, softmax in float", _psaq_vit),
}


def parse_bits(bits: str) -> tuple[int, int]:
    """Return (weight bits, activation bits) of a name like "w4a4"; any pair of 2 to 8, `BITS` are the usual ones.

    Raises:
        ValueError: not such a name.
    """
    match = re.fullmatch(r"w([2-8])a([2-8])", bits) if isinstance(bits, str) else None
    return (int(match[1]), int(match[2])) if match else lookup(bits, BITS, "bits preset")


def resolve(bits: str, policy: str, **changes: dict[str, Any] | None) -> tuple[Roles, list[Override]]:
    """Return the roles of `policy` at `bits`, those in `changes` updated, and the policy's own overrides.

    Raises:
        ValueError: unknown bits, policy, role option, quantizer or observer, or bits outside 2..8.
    """
    named = lookup(policy, POLICIES, "quantization policy")
    roles = named.roles(*parse_bits(bits))
    for role in ROLES:
        change = changes.get(role) or {}
        check_role(role, change, where=role)
        _change(roles.setdefault(role, {}), change)
    return roles, list(named.overrides.items())


def matches(site: str, glob: str) -> bool:
    """Whether a glob means a site; "head.*" means also a `head` that is no container but the site itself."""
    return fnmatchcase(site, glob) or (glob.endswith(".*") and fnmatchcase(site, glob.removesuffix(".*")))


def site_roles(site: str, base: Roles, overrides: Sequence[Override]) -> Roles:
    """Return the roles at one site: `base`, then every override whose glob matches, in order; a glob may come twice."""
    roles = deepcopy(base)
    if fnmatchcase(site, GELU_SITES):
        _change(roles["activation"], roles["gelu"])
    for glob, change in overrides:
        if not matches(site, glob):
            continue
        for role in ROLES:
            if "bits" in change:
                roles[role]["bits"] = change["bits"]
            _change(roles[role], change.get(role, {}))
        if fnmatchcase(site, GELU_SITES):
            _change(roles["activation"], change.get("gelu", {}))
    return roles


def _change(options: dict[str, Any], change: dict[str, Any]) -> None:
    """Update a role's options. Another quantizer by name drops what was said of the uniform grid in its place."""
    if change.get("quantizer", "uniform") != "uniform":
        for key in UNIFORM_ONLY:
            options.pop(key, None)
    options.update(change)


def check_override(glob: str, change: dict[str, Any]) -> None:
    """Raise ValueError when an override says something that cannot be."""
    for key in change:
        if key not in ("bits", *ROLES):
            raise ValueError(
                f"overrides[{glob!r}]: unknown key {key!r}{did_you_mean(key, ROLES)}; choices: bits, {', '.join(ROLES)}"
            )
    if "bits" in change:
        check_bits(change["bits"], where=f"overrides[{glob!r}]")
    for role in ROLES:
        check_role(role, change.get(role, {}), where=f"overrides[{glob!r}].{role}")


def check_role(role: str, options: dict[str, Any], where: str) -> None:
    """Raise ValueError when the options of a role say something that cannot be."""
    for key in options:
        if key not in OPTIONS[role]:
            near = did_you_mean(key, OPTIONS[role])
            raise ValueError(f"{where}: unknown key {key!r}{near}; choices: {', '.join(OPTIONS[role])}")
    if "bits" in options:
        check_bits(options["bits"], where)
    if "quantizer" in options:
        lookup(options["quantizer"], QUANTIZERS, f"quantizer in {where}")
    if "observer" in options:
        lookup(options["observer"], OBSERVERS, f"observer in {where}")


def check_bits(bits: Any, where: str) -> None:
    """Bits are an integer 2..8, or None: left in float."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8):
        raise ValueError(f"{where}: bits is {bits!r}; choices: 2 to 8, or null for float")
