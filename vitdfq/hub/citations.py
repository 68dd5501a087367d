"""The works whose methods a run used, for its model card: read from the summaries and docstrings of what it used."""

from typing import Any

from vitdfq.calibration import STEPS
from vitdfq.calibration.calibrate import parse_steps
from vitdfq.calibration.efforts import DEFAULT_EFFORT, steps_for
from vitdfq.calibration.rounding import learned_rounding
from vitdfq.common.sources import cited, reference
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.quantization.options import ROLES
from vitdfq.quantization.policy import DEFAULT_POLICY, resolve
from vitdfq.synthesis import LOSSES, METHODS, train_generator
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL

Used = list[tuple[str, Any]]  # what was used, for people, and the text or the object whose docstring cites its sources


def citations(metrics: dict[str, Any], recipe: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Return one line of Markdown for each work: its reference, and what the run used of it.

    Args:
        metrics: content of metrics.json.
        recipe: `Recipe.to_dict()`.
        config: content of config.json.
    """
    used = [*_images(metrics, recipe), *_preparation(config), *_quantization(config), *_calibration(metrics, recipe)]
    used_of: dict[str, list[str]] = {}
    for what, source in dict(used).items():
        for identifier in cited(source):
            used_of.setdefault(identifier, []).append(what)
    return [f"{reference(identifier)}: {', '.join(names)}" for identifier, names in used_of.items()]


def _images(metrics: dict[str, Any], recipe: dict[str, Any]) -> Used:
    """Presets, and the losses and parts of those that are optimized."""
    options, used = SynthesisOptions(**recipe.get("synthesize", {})), []
    for name in metrics["synthesis"].get("presets", [metrics["synthesis"]["method"]]):
        method = options.resolved() if name == options.method else METHODS[name]
        used += [(f"images `{name}`", METHODS[name].summary), *_parts(method)]
    return used


def _parts(method: Method) -> Used:
    if not method.steps:
        return [(f"procedural images `{method.start}`", PROCEDURAL[method.start])]
    if method.engine == "generator":
        parts: Used = [("engine `generator`", train_generator)]
    else:
        parts = [(f"parametrization `{method.parametrization}`", PARAMETRIZATIONS[method.parametrization])]
    active = [name for name, options in method.losses.items() if options.get("weight") != 0 and name in LOSSES]
    return parts + [(f"loss `{name}`", LOSSES[name].function) for name in active]


def _preparation(config: dict[str, Any]) -> Used:
    steps = config["vitdfq"].get("prepare", {}).get("steps", [])
    return [(f"preparation `{name}`", TRANSFORMS[name]) for name in steps]


def _quantization(config: dict[str, Any]) -> Used:
    arguments = config["vitdfq"].get("quantize", {})
    choice, policy = resolve(arguments), arguments.get("policy", DEFAULT_POLICY)
    grids = [choice.roles.weight, choice.roles.activation, choice.roles.softmax]
    changes = [choice.roles.gelu, *(change.get(role) or {} for change in choice.overrides.values() for role in ROLES)]
    names = [grid.quantizer for grid in grids if grid.bits is not None]
    names += [change["quantizer"] for change in changes if change.get("quantizer")]
    quantizers = [(f"quantizer `{name}`", QUANTIZERS[name]) for name in dict.fromkeys(names)]
    return [(f"policy `{policy}`", POLICIES[policy].summary), *quantizers]


def _calibration(metrics: dict[str, Any], recipe: dict[str, Any]) -> Used:
    section = recipe.get("calibrate", {})
    steps = section.get("steps")
    if steps is None:
        bits = {key: metrics["student"][key] for key in ("weight_bits", "activation_bits")}
        steps = steps_for(bits, section.get("effort") or recipe.get("effort") or DEFAULT_EFFORT)
    used: Used = []
    for name, options in parse_steps(steps):
        used.append((f"calibration `{name}`", STEPS[name].apply))
        if getattr(options, "rounding", None) == "adaround":
            used.append(("rounding `adaround`", learned_rounding))
    return used
