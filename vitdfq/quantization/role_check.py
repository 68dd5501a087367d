"""Options of a site's roles that cannot be together: said when a student is built, not when it is calibrated hours later."""

from fnmatch import fnmatchcase
from typing import Any

from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.policy import GELU_SITES, UNIFORM_ONLY, Roles


def check_layer(site: str, roles: Roles) -> None:
    """Check the roles of a Linear or Conv2d, `weight` and `activation`.

    Raises:
        ValueError: a grid that its values do not suit, an option of another grid, an observer that nothing can guide.
    """
    weight, inputs = roles["weight"], roles["activation"]
    _check_grid(roles, "weight", "weights", ("uniform",))
    if _is_guided(weight) and not weight.get("per_channel", True):
        raise ValueError(f"weight.observer {weight['observer']!r} does not go with per_channel: false")
    reads_gelu = fnmatchcase(site, GELU_SITES)
    if reads_gelu and inputs.get("per_token") and inputs["bits"] is not None and inputs["quantizer"] != "uniform":
        raise ValueError(f"activation.per_token goes with quantizer 'uniform' only, not {inputs['quantizer']!r}")
    _check_grid(roles, "activation", "this input", ("uniform", "twin_gelu") if reads_gelu else ("uniform",))


def check_product(site: str, roles: Roles) -> None:
    """Check the roles of a product of attention, `activation` and for softmax's output `softmax`.

    Raises:
        ValueError: as `check_layer`.
    """
    operand = roles["activation"]
    _check_grid(roles, "activation", "operands of attention", ("uniform",))
    if _is_guided(operand) and operand.get("per_head"):
        raise ValueError(f"activation.observer {operand['observer']!r} does not go with per_head: true")
    if site.endswith(".av"):
        _check_grid(roles, "softmax")


def _check_grid(roles: Roles, role: str, values: str = "", grids: tuple[str, ...] = ()) -> None:
    """Check a role's quantizer against `grids` that suit its `values` (any if empty), and its options against the quantizer."""
    options = roles[role]
    if options["bits"] is None:
        return
    name = options["quantizer"]
    if grids and name not in grids:
        raise ValueError(f"{role}.quantizer {name!r} does not go with {values}; choices: {', '.join(grids)}")
    for key in UNIFORM_ONLY:
        if name != "uniform" and key in options:
            said = "gelu" if role == "activation" and key in roles["gelu"] else role
            raise ValueError(f"{said}.{key} {options[key]!r} goes with quantizer 'uniform' only, not {name!r}")


def _is_guided(options: dict[str, Any]) -> bool:
    return options["bits"] is not None and "observer" in options and OBSERVERS[options["observer"]].guided
