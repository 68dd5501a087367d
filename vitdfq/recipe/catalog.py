"""Every name that a recipe can use, by kind, each with one line that says what it is."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vitdfq.calibration import STEPS
from vitdfq.calibration.efforts import EFFORTS
from vitdfq.common.docstrings import first_sentence
from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.lookup import lookup
from vitdfq.models.load import ZOO
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.options import SPELLINGS, parse_bits
from vitdfq.recipe.find import header_line, packaged_recipes
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.procedural import PROCEDURAL

OLD_KINDS = {"starts": "procedural", "canvases": "parametrizations"}


def entries(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return kind -> name -> description in one line, for `vitdfq list`; of one kind only, if it is given.

    Descriptions are written where the entry is: in its `summary`, its docstring, or the header of its file.

    Raises:
        InputError: no such kind.
    """
    if kind is None:
        return {kind: read() for kind, read in KINDS.items()}
    if kind in OLD_KINDS:
        raise InputError(f"unknown kind of name {kind!r}, did you mean {OLD_KINDS[kind]!r}?")
    try:
        return {kind: lookup(kind, KINDS, "kind of name")()}
    except ValueError as error:
        raise InputError(str(error)) from None


def _documented(items: Iterable[tuple[str, Callable[..., Any]]]) -> dict[str, str]:
    return {name: first_sentence(documented) for name, documented in items}


def _zoo_model(config_json: Path) -> str:
    config = read_json(config_json)
    size, classes = config["model_args"]["img_size"], config["num_classes"]
    name, top1 = config["architecture"], config["top1_fashion_mnist_test"]
    return f"{name} for {size} pixels, {classes} classes of Fashion-MNIST, {top1} % top-1"


def _bits(bits: str) -> str:
    weight_bits, activation_bits = parse_bits(bits)
    return f"weights of {weight_bits} bits, activations {'in float' if activation_bits is None else f'of {activation_bits} bits'}"


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "recipes": lambda: {name: header_line(path, "What") for name, path in sorted(packaged_recipes().items())},
    "zoo": lambda: {f"zoo:{path.parent.name}": _zoo_model(path) for path in sorted(ZOO.glob("*/config.json"))},
    "methods": lambda: {name: method.summary for name, method in sorted(METHODS.items())},
    "losses": lambda: _documented((name, loss.function) for name, loss in sorted(LOSSES.items())),
    "procedural": lambda: _documented(PROCEDURAL.items()),
    "parametrizations": lambda: _documented(PARAMETRIZATIONS.items()),
    "transforms": lambda: _documented(sorted(TRANSFORMS.items())),
    "policies": lambda: {name: policy.summary for name, policy in POLICIES.items()},
    "quantizers": lambda: _documented(sorted(QUANTIZERS.items())),
    "observers": lambda: {name: observer.summary for name, observer in OBSERVERS.items()},
    "efforts": lambda: {name: effort.summary for name, effort in EFFORTS.items()},
    "steps": lambda: _documented((name, step.apply) for name, step in STEPS.items()),
    "bits": lambda: {bits: _bits(bits) for bits in SPELLINGS},
}
