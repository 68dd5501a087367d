"""Which quantizer sits where: presets by name, and overrides by glob on site names."""

from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from vitdfq.pick import did_you_mean, pick
from vitdfq.quantization.quantizers import QUANTIZERS

Policy = dict[str, dict[str, Any]]  # role -> {"bits", "quantizer", options of that quantizer}
ROLES = ("weight", "activation", "softmax")
OPTIONS = {  # role -> what may be said about it
    "weight": ("bits", "quantizer", "symmetric"),
    "activation": ("bits", "quantizer", "symmetric"),
    "softmax": ("bits", "quantizer", "renormalize"),
}


def _policy(weight_bits: int, activation_bits: int) -> Policy:
    # Row sums of symmetric weights vanish from the integer product, which is worth more than half a step at 8 bits. Softmax
    # rows average 1/N: a uniform grid of fewer than 8 bits rounds most of them to zero, log2 reaches 2^-14 with 4 bits.
    logarithmic = activation_bits < 8
    return {
        "weight": {"bits": weight_bits, "quantizer": "uniform", "symmetric": weight_bits == 8},
        "activation": {"bits": activation_bits, "quantizer": "uniform", "symmetric": False},
        "softmax": {
            "bits": activation_bits,
            "quantizer": "log2" if logarithmic else "uniform",
            "renormalize": logarithmic,
        },
    }


POLICIES: dict[str, Policy] = {
    "w8a8": _policy(8, 8),
    "w6a6": _policy(6, 6),
    "w4a8": _policy(4, 8),
    "w4a4": _policy(4, 4),
    "w3a3": _policy(3, 3),
}

# The first and last layers see what the rest cannot repair, and cost little: 8 bits, as in the published tables.
DEFAULT_OVERRIDES = {
    "patch_embed.proj": {"activation": {"bits": 8}},
    "head*": {"bits": 8},
}


def site_policy(site: str, base: Policy, overrides: dict[str, dict[str, Any]]) -> Policy:
    """Return the policy of one site: `base`, then every override whose glob matches, in order."""
    policy = deepcopy(base)
    for glob, change in overrides.items():
        if not fnmatchcase(site, glob):
            continue
        for role in ROLES:
            if "bits" in change:
                policy[role]["bits"] = change["bits"]
            policy[role].update(change.get(role, {}))
    return policy


def resolve_base(bits: str, **changes: dict[str, Any] | None) -> Policy:
    """Return preset `bits` with the roles in `changes` updated.

    Raises:
        ValueError: unknown preset, role option, quantizer, or bits outside 2..8.
    """
    base = deepcopy(pick(bits, POLICIES, "bits preset"))
    for role, change in changes.items():
        base[role].update(change or {})
        check_role(role, base[role], where=role)
    return base


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
        pick(options["quantizer"], QUANTIZERS, f"quantizer in {where}")


def check_bits(bits: Any, where: str) -> None:
    """Bits are an integer 2..8, or None: left in float."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8):
        raise ValueError(f"{where}: bits is {bits!r}; choices: 2 to 8, or null for float")
