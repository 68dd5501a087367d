"""Every name that a recipe can use, by kind."""

from vitdfq.calibration import STEPS
from vitdfq.common.errors import InputError
from vitdfq.common.lookup import lookup
from vitdfq.models.load import ZOO
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.options import SPELLINGS
from vitdfq.recipe.find import packaged_recipes
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.procedural import PROCEDURAL

OLD_KINDS = {"starts": "procedural", "canvases": "parametrizations"}


def names(kind: str | None = None) -> dict[str, list[str]]:
    """Return kind -> names for `vitdfq list`; of one kind only, if it is given.

    Raises:
        InputError: no such kind.
    """
    catalog = {
        "recipes": sorted(packaged_recipes()),
        "zoo": sorted(f"zoo:{path.parent.name}" for path in ZOO.glob("*/config.json")),
        "methods": sorted(METHODS),
        "losses": sorted(LOSSES),
        "procedural": list(PROCEDURAL),
        "parametrizations": list(PARAMETRIZATIONS),
        "transforms": sorted(TRANSFORMS),
        "bits": list(SPELLINGS),
        "policies": list(POLICIES),
        "quantizers": sorted(QUANTIZERS),
        "observers": list(OBSERVERS),
        "steps": list(STEPS),
    }
    if kind is None:
        return catalog
    if kind in OLD_KINDS:
        raise InputError(f"unknown kind of name {kind!r}, did you mean {OLD_KINDS[kind]!r}?")
    try:
        return {kind: lookup(kind, catalog, "kind of name")}
    except ValueError as error:
        raise InputError(str(error)) from None
