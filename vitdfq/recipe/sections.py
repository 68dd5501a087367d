"""What each section of a recipe may say: names out of the library's dict literals, numbers in range."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from vitdfq import evaluation
from vitdfq.calibration import STEPS, calibrate
from vitdfq.data import check_dataset
from vitdfq.models import load_teacher
from vitdfq.models.building import known_architecture
from vitdfq.pick import pick
from vitdfq.preparation import TRANSFORMS, prepare
from vitdfq.quantization import POLICIES, quantize
from vitdfq.quantization.policy import OPTIONS, ROLES, check_override, check_role
from vitdfq.recipe.document import Document, Keys
from vitdfq.recipe.signature import check_keywords, check_value, keywords, unknown_key
from vitdfq.synthesis import LOSSES, METHODS, resolve_method, synthesize

# section -> the function that it calls
CALLS: dict[str, Callable] = {
    "model": load_teacher,
    "synthesize": synthesize,
    "prepare": prepare,
    "quantize": quantize,
    "calibrate": calibrate,
    "evaluate": evaluation.evaluate,
}
ROLE_TYPES = {"bits": int | None, "quantizer": str, "symmetric": bool, "renormalize": bool}


def check_sections(document: Document) -> None:
    """Check every section against the function it calls, then the names and numbers in it.

    Raises:
        RecipeError: with the place, the value and the choices.
    """
    for section, function in CALLS.items():
        known = keywords(function, "name")
        check_keywords(document, (section,), known)
        CHECKS[section](document, document.content[section])
    for index, method in enumerate(document.content["baselines"]):
        with document.blaming("baselines", index):
            pick(method, METHODS, "synthesis method")


def takes_seed(section: str) -> bool:
    return "seed" in inspect.signature(CALLS[section]).parameters


def _check_model(document: Document, section: dict[str, Any]) -> None:
    if "name" not in section:
        document.fail(("model",), "'name' is missing: a timm name such as deit_tiny_patch16_224.fb_in1k, or zoo:NAME")
    name = section["name"]
    if not any(sign in name for sign in ":/\\"):  # the others are looked up where they are loaded
        with document.blaming("model", "name"):
            known_architecture(name)


def _check_synthesize(document: Document, section: dict[str, Any]) -> None:
    options = {key: section[key] for key in inspect.signature(resolve_method).parameters if key in section}
    changes = {key: value for key, value in section.items() if key in METHOD_FIELDS}
    method = section.get("method", "sardfq")
    with document.blaming("synthesize", "method"):
        pick(method, METHODS, "synthesis method")
    del options
    for name in section.get("losses") or {}:
        _check_loss(document, ("synthesize", "losses", name), method)
    for key, value in changes.items():
        with document.blaming("synthesize", key):
            resolve_method(method, **{key: value})
