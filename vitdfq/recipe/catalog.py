"""Every name that a recipe can use, by kind."""

from vitdfq.calibration import STEPS
from vitdfq.common.errors import InputError
from vitdfq.common.lookup import lookup
from vitdfq.models.load import ZOO
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.policy import BITS
from vitdfq.recipe import packaged_recipes
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.procedural import PROCEDURAL


def names(kind: str | None = None) -> dict[str, list[str]]:
    """Return kind -> names, as `vitdfq list` shows them; of one kind only, if it is given.

    Raises:
        InputError: no such kind.
    """
    found = {
        "recipes": sorted(packaged_recipes()),
        "zoo": sorted(f"zoo:{path.parent.name}" for path in ZOO.glob("*/config.json")),
        "methods": sorted(METHODS),
        "losses": sorted(LOSSES),
        "starts": list(PROCEDURAL),
        "parametrizations": list(PARAMETRIZATIONS),
        "transforms": sorted(TRANSFORMS),
        "bits": list(BITS),
        "policies": list(POLICIES),
        "quantizers": sorted(QUANTIZERS),
        "observers": list(OBSERVERS),
        "steps": list(STEPS),
    }
    if kind is None:
        return found
    try:
        return {kind: lookup(kind, found, "kind of name")}
    except ValueError as error:
        raise InputError(str(error)) from None
