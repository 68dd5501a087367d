"""What each section of a recipe may say: names out of the library's dict literals, numbers in range."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

from vitdfq.calibration import STEPS, calibrate
from vitdfq.common.errors import InputError
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_count
from vitdfq.data import check_dataset
from vitdfq.evaluation import EvaluationOptions, evaluate
from vitdfq.hub.publish import check_repo, push
from vitdfq.models import load_teacher
from vitdfq.models.build import known_architecture
from vitdfq.models.untrusted import check_arguments
from vitdfq.preparation import TRANSFORMS, prepare
from vitdfq.quantization import POLICIES, QUANTIZERS, quantize
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.policy import OPTIONS, ROLES, check_bits, parse_bits
from vitdfq.recipe.compare_section import Comparison
from vitdfq.recipe.document import Document, Keys
from vitdfq.recipe.signature import check_keywords, check_value, keywords, unknown_key
from vitdfq.runtime.trackers import check_tracker
from vitdfq.synthesis import LOSSES, METHODS, Method, resolve_method, synthesize

# section -> the function whose keyword arguments it holds
CALLS: dict[str, Callable] = {
    "model": load_teacher,
    "synthesize": synthesize,
    "prepare": prepare,
    "quantize": quantize,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "push": push,
}
COUNTS = ("num_images", "batch_size", "iterations")  # options that are at least 1 wherever they stand
SWITCHES = ("symmetric", "renormalize", "per_channel", "per_head", "per_token")
ROLE_TYPES = {"bits": int | None, "quantizer": str, "observer": str, "group_size": int | None} | dict.fromkeys(SWITCHES, bool)


def check_sections(document: Document) -> None:
    """Check every section against the function it calls, then the names and numbers in it.

    Raises:
        RecipeError: with the place, the value and the choices.
    """
    for section, function in CALLS.items():
        check_keywords(document, (section,), keywords(function, "name", "repo"))
        _check_counts(document, (section,))
        CHECKS[section](document, document.content[section])
    for index, method in enumerate(document.content["baselines"]):
        with document.blaming("baselines", index):
            lookup(method, METHODS, "synthesis method")
    for index, name in enumerate(document.content["trackers"]):
        with document.blaming("trackers", index):
            check_tracker(name)
    _check_compare(document, document.content["compare"])


def takes_seed(section: str) -> bool:
    return "seed" in inspect.signature(CALLS[section]).parameters


def _check_model(document: Document, section: dict[str, Any]) -> None:
    if "name" not in section:
        document.fail(("model",), "name is missing: a timm name such as deit_tiny_patch16_224.fb_in1k, or zoo:NAME")
    if "cache_dir" in section:
        document.fail(("model", "cache_dir"), "a recipe does not say where files are put; set HF_HUB_CACHE instead")
    with document.blaming("model"):
        check_arguments({key: value for key, value in section.items() if key not in ("name", "pretrained")})
    name = section["name"]
    if not any(sign in name for sign in ":/\\"):  # others are looked up where they are loaded
        with document.blaming("model", "name"):
            known_architecture(name)


def _check_synthesize(document: Document, section: dict[str, Any]) -> None:
    method, losses = section.get("method", "sardfq"), section.get("losses")
    with document.blaming("synthesize", "method"):
        lookup(method, METHODS, "synthesis method")
    for name in losses or {}:
        _check_loss(document, ("synthesize", "losses", name))
    with document.blaming("synthesize", "losses"):
        resolve_method(method, losses, steps=0)
    for key in [field.name for field in fields(Method) if field.name in section and field.name != "losses"]:
        with document.blaming("synthesize", key):
            resolve_method(method, losses, **{"engine": section.get("engine"), key: section[key]})


def _check_loss(document: Document, keys: Keys) -> None:
    with document.blaming(*keys):
        loss = lookup(keys[-1], LOSSES, "loss")
    options = {name: kind for function, _ in loss.needs() for name, kind in keywords(function).items()}
    check_keywords(document, keys, {"weight": float, "after": float, "every": int} | options)


def _check_prepare(document: Document, section: dict[str, Any]) -> None:
    for index, name in enumerate(section.get("steps") or []):
        with document.blaming("prepare", "steps", index):
            lookup(name, TRANSFORMS, "preparation step")


def _check_quantize(document: Document, section: dict[str, Any]) -> None:
    with document.blaming("quantize", "bits"):
        parse_bits(section.get("bits", "w4a4"))
    with document.blaming("quantize", "policy"):
        lookup(section.get("policy", "vitdfq"), POLICIES, "quantization policy")
    for role in ROLES:
        if section.get(role) is not None:
            _check_role(document, ("quantize", role), role)
    for glob, change in (section.get("overrides") or {}).items():
        keys = ("quantize", "overrides", glob)
        check_value(document, keys, dict[str, Any])
        for key in change:
            if key == "bits":
                _check_bits(document, (*keys, key))
            elif key in ROLES:
                _check_role(document, (*keys, key), key)
            else:
                document.fail((*keys, key), unknown_key(key, ("bits", *ROLES)))


def _check_role(document: Document, keys: Keys, role: str) -> None:
    check_keywords(document, keys, {option: ROLE_TYPES.get(option, Any) for option in OPTIONS[role]})
    options = document.value(keys)
    if "bits" in options:
        _check_bits(document, (*keys, "bits"))
    if "quantizer" in options:
        with document.blaming(*keys, "quantizer"):
            lookup(options["quantizer"], QUANTIZERS, "quantizer")
    if "observer" in options:
        with document.blaming(*keys, "observer"):
            lookup(options["observer"], OBSERVERS, "observer")


def _check_bits(document: Document, keys: Keys) -> None:
    check_value(document, keys, int | None)
    try:
        check_bits(document.value(keys), where="")
    except ValueError as error:
        document.fail(keys, str(error).removeprefix(": "))


def _check_calibrate(document: Document, section: dict[str, Any]) -> None:
    names = []
    for index, entry in enumerate(section.get("steps") or []):
        keys = ("calibrate", "steps", index)
        if isinstance(entry, dict) and len(entry) != 1:
            document.fail(keys, f"a step is a name or {{name: {{option: value}}}}, not {entry!r}")
        name = next(iter(entry)) if isinstance(entry, dict) else entry
        with document.blaming(*keys):
            step = lookup(name, STEPS, "calibration step")
        if isinstance(entry, dict) and entry[name] is not None:
            check_keywords(document, (*keys, name), get_type_hints(step.options))
            _check_counts(document, (*keys, name))
        names.append(name)
    if section.get("steps") is not None and "observe" not in names:
        usual = "leave steps out for those that the bits need"
        document.fail(("calibrate", "steps"), f"[{', '.join(names)}] lacks observe, which fits the quantizers; {usual}")


def _check_evaluate(document: Document, section: dict[str, Any]) -> None:
    with document.blaming("evaluate", "dataset"):
        check_dataset(section.get("dataset", "imagenet-1k"))
    if "num_workers" in section:
        with document.blaming("evaluate", "num_workers"):
            EvaluationOptions(num_workers=section["num_workers"])


def _check_push(document: Document, section: dict[str, Any]) -> None:
    if not section:
        return
    if "repo" not in section:
        document.fail(("push",), "repo is missing: a Hub repository owner/name")
    try:
        check_repo(section["repo"])
    except InputError as error:
        document.fail(("push", "repo"), str(error))


def _check_compare(document: Document, section: dict[str, Any]) -> None:
    check_keywords(document, ("compare",), keywords(Comparison))
    for key in ("methods", "seeds"):
        listed = section.get(key)
        if listed is not None and (not listed or len(set(listed)) < len(listed)):
            document.fail(("compare", key), f"{listed} is empty or names something twice")
    for index, method in enumerate(section.get("methods") or []):
        if method == "real":
            document.fail(("compare", "methods", index), "real images are no method; ask for them with compare.real_images: 32")
        with document.blaming("compare", "methods", index):
            lookup(method, METHODS, "synthesis method")
    for key, number in [
        ("real_images", section.get("real_images", 0)),
        *(("seeds", seed) for seed in section.get("seeds") or []),
    ]:
        if number < 0:
            document.fail(("compare", key), f"{number} is negative")


def _check_counts(document: Document, keys: Keys) -> None:
    for key in COUNTS:
        value = document.value((*keys, key))
        if value is not None:
            with document.blaming(*keys, key):
                check_count(value)


CHECKS: dict[str, Callable[[Document, dict[str, Any]], None]] = {
    "model": _check_model,
    "synthesize": _check_synthesize,
    "prepare": _check_prepare,
    "quantize": _check_quantize,
    "calibrate": _check_calibrate,
    "evaluate": _check_evaluate,
    "push": _check_push,
}
