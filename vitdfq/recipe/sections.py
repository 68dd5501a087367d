"""The sections of a recipe: which call each one holds the arguments of, and which function checks their values.

Keys and types are checked against the signature. Values are checked by the library's functions, before any work; the key that
a ValueError names gets the blame (blame.py).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vitdfq.calibration import STEPS, calibrate
from vitdfq.calibration.calibrate import check_effort, parse_steps
from vitdfq.common.errors import InputError
from vitdfq.common.lookup import lookup
from vitdfq.data import check_dataset
from vitdfq.evaluation import AUTO, NONE, EvaluationOptions, KnnOptions, evaluate
from vitdfq.hub.publish import check_repo, push
from vitdfq.models import load_teacher
from vitdfq.models.load import check_name
from vitdfq.models.untrusted import check_arguments
from vitdfq.preparation import TRANSFORMS, prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.options import parse_bits
from vitdfq.quantization.policy import check_quantize
from vitdfq.recipe.document import Document, Keys
from vitdfq.recipe.signature import check_keywords, keywords
from vitdfq.runtime.trackers import check_tracker
from vitdfq.synthesis import LOSSES, METHODS, synthesize
from vitdfq.synthesis.options import SynthesisOptions

Nested = Iterator[tuple[Keys, Mapping[str, Any]]]  # path of a mapping in a section -> its keys and their types


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The section `compare`: the rows and seeds of the table that `vitdfq compare` makes.

    Attributes:
        methods: synthesis methods, a row each; None: the recipe's method and its baselines. The recipe's method keeps all its
            options, another one gets the same number of images and, if it takes steps, of steps.
        seeds: of synthesis and calibration, every row is computed once for each; None: the recipe's seed.
        real_images: number of real images, never evaluated and without labels, for one more row; 0: no such row.

    Raises:
        ValueError: an unknown method, an empty list, one with duplicates, or a negative number.
    """

    methods: list[str] | None = None
    seeds: list[int] | None = None
    real_images: int = 0

    def __post_init__(self) -> None:
        for name, values in (("methods", self.methods), ("seeds", self.seeds)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{name}: {values} is empty or names something twice")
        for method in self.methods or []:
            if method == "real":
                raise ValueError("methods: 'real' is not a method; ask for real images with compare.real_images: 32")
            lookup(method, METHODS, "synthesis method")
        for name, number in (("real_images", self.real_images), *(("seeds", seed) for seed in self.seeds or [])):
            if number < 0:
                raise ValueError(f"{name}: {number} is negative")


def _check_model(name: str | None = None, pretrained: bool = True, cache_dir: str | None = None, **arguments: Any) -> None:
    if name is None:
        raise ValueError("name is missing: a timm name such as deit_tiny_patch16_224.fb_in1k, or zoo:NAME")
    if cache_dir is not None:
        raise ValueError("cache_dir: a recipe does not choose where files are stored; set HF_HUB_CACHE instead")
    check_arguments(arguments)
    check_name(name)


def _losses(section: dict[str, Any]) -> Nested:
    for name in section.get("losses") or {}:
        needs = lookup(name, LOSSES, "loss").needs()
        options = {option: type_ for function, _ in needs for option, type_ in keywords(function).items()}
        yield ("losses", name), {"weight": float, "after": float, "every": int} | options


def _check_preparation(steps: list[str] | None = None) -> None:
    for name in steps or []:
        lookup(name, TRANSFORMS, "preparation step")


def _check_quantization(**section: Any) -> None:
    check_quantize(section)


def _steps(section: dict[str, Any]) -> Nested:
    for index, entry in enumerate(section.get("steps") or []):
        if isinstance(entry, dict) and len(entry) == 1:
            name, options = next(iter(entry.items()))
            known = keywords(lookup(name, STEPS, "calibration step").options)
            if options is not None:
                yield ("steps", index, name), known


def _check_calibration(steps: list[Any] | None = None, effort: str | None = None, seed: int = 0) -> None:
    check_effort(effort, steps)
    if steps is not None and "observe" not in (name for name, _ in parse_steps(steps)):
        raise ValueError("steps: observe is missing, which fits the quantizers; leave steps out for those that the bits need")


def _check_evaluation(**section: Any) -> None:
    options = EvaluationOptions(**section)
    neighbors = None if options.neighbors is None else options.neighbors.dataset
    for dataset in (options.dataset, neighbors):
        if dataset not in (None, AUTO, NONE):
            check_dataset(str(dataset))


def _neighbors(section: dict[str, Any]) -> Nested:
    if section.get("knn") is not None:
        yield ("knn",), keywords(KnnOptions)


def _check_push(repo: str | None = None, **options: Any) -> None:
    if repo is not None:
        try:
            check_repo(repo)
        except InputError as error:
            raise ValueError(str(error)) from None
    elif options:
        raise ValueError("repo is missing: a Hub repository owner/name")


@dataclass(frozen=True)
class Section:
    """How one section is checked.

    Attributes:
        call: the function or dataclass whose keyword arguments the section holds.
        check: raises ValueError for values that cannot be, given the same keyword arguments.
        nested: yields the mappings inside the section that have keys and types of their own.
    """

    call: Callable[..., Any]
    check: Callable[..., object]
    nested: Callable[[dict[str, Any]], Nested] = lambda section: iter(())


SECTIONS: dict[str, Section] = {
    "model": Section(load_teacher, _check_model),
    "synthesize": Section(synthesize, SynthesisOptions, _losses),
    "prepare": Section(prepare, _check_preparation),
    "quantize": Section(quantize, _check_quantization),
    "calibrate": Section(calibrate, _check_calibration, _steps),
    "evaluate": Section(evaluate, _check_evaluation, _neighbors),
    "push": Section(push, _check_push),
    "compare": Section(Comparison, Comparison),
}


def check_sections(document: Document) -> None:
    """Check every section: keys and types first, then values.

    Raises:
        RecipeError: with the place, the value and the choices.
    """
    for name, section in SECTIONS.items():
        check_keywords(document, (name,), keywords(section.call, "name", "repo"))
        with document.blaming(name):
            for keys, known in section.nested(document.content[name]):
                check_keywords(document, (name, *keys), known)
            section.check(**document.content[name])
    lists: dict[str, Callable[[Any], object]] = {
        "baselines": lambda method: lookup(method, METHODS, "synthesis method"),
        "trackers": check_tracker,
        "also_bits": parse_bits,
    }
    with document.blaming("effort"):
        check_effort(document.content.get("effort"), document.content["calibrate"].get("steps"))
    for key, check in lists.items():
        for index, value in enumerate(document.content[key]):
            with document.blaming(key, index):
                check(value)


def takes_seed(section: str) -> bool:
    """Return whether the section's function has a parameter `seed`, which the recipe's seed is the default of."""
    return "seed" in inspect.signature(SECTIONS[section].call).parameters
