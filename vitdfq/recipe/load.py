"""load_recipe(): from a file, a name or a dict to a checked Recipe."""

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vitdfq.recipe.document import Document
from vitdfq.recipe.extends import with_bases
from vitdfq.recipe.find import find_recipe
from vitdfq.recipe.old_names import rename
from vitdfq.recipe.reader import read_file, set_value
from vitdfq.recipe.signature import check_keywords, check_plain, keywords

if TYPE_CHECKING:
    from vitdfq.evaluation import EvaluationOptions
    from vitdfq.synthesis.options import SynthesisOptions

logger = logging.getLogger(__name__)

CALLS = ("model", "synthesize", "prepare", "quantize", "calibrate", "evaluate", "push")  # sections that are one call each
OFF = (None, False, "none", "None")  # as the section `evaluate`: a run without evaluation
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")  # a recipe's name is the name of a folder


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe: a section holds keyword arguments of the function of its name, `model` those of `load_teacher`.

    Attributes:
        name: of the recipe, and of the folder of its results.
        notes: a text of your own.
        seed: of everything random.
        effort: "quick", "standard" or "thorough": how much training, where the recipe names no calibration steps.
        reference_top1: the teacher's published top-1 in percent on the whole split; another one ends the run.
        min_agreement: percent of the synthetic images on which the student must agree with the teacher; None: well above chance.
        min_cosine: the same for features: their mean cosine to the teacher's on the synthetic images.
        model: the teacher.
        synthesize: the images for calibration.
        prepare: changes of the teacher that keep its function.
        quantize: bits and quantizers.
        calibrate: steps that set scales and round weights.
        evaluate: the images to evaluate on; null or none: no evaluation.
        push: the Hub repository to publish in; without `repo` nothing is published.
        baselines: synthesis methods; a student is calibrated on the images of each, for comparison.
        also_bits: further bits: the same images and baselines, measured, not saved.
        trackers: of accelerate, "tensorboard" for example: they receive losses and rates.
        compare: the rows of the table of `vitdfq compare`.

    Raises:
        ValueError: the name cannot be a folder's, the seed is negative, or a percentage or a cosine is none.
    """

    name: str
    notes: str | None = None
    seed: int = 0
    effort: str | None = None
    reference_top1: float | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    model: dict[str, Any] = field(default_factory=dict)
    synthesize: dict[str, Any] = field(default_factory=dict)
    prepare: dict[str, Any] = field(default_factory=dict)
    quantize: dict[str, Any] = field(default_factory=dict)
    calibrate: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)
    push: dict[str, Any] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)
    also_bits: list[str] = field(default_factory=list)
    trackers: list[str] = field(default_factory=list)
    compare: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"name: {self.name!r} must be letters, digits, '.', '_' and '-', 100 at most: it is the name of a folder"
            )
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")
        for key, percentage in (("reference_top1", self.reference_top1), ("min_agreement", self.min_agreement)):
            if percentage is not None and not 0 <= percentage <= 100:
                raise ValueError(f"{key}: {percentage} is not a percentage")
        if self.min_cosine is not None and not 0 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine: {self.min_cosine} is not between 0 and 1")

    @property
    def synthesis(self) -> "SynthesisOptions":
        """The section `synthesize` with its defaults."""
        from vitdfq.synthesis.options import SynthesisOptions  # late: torch, timm and all parts of the package

        return SynthesisOptions(**self.synthesize)

    @property
    def evaluation(self) -> "EvaluationOptions":
        """The section `evaluate` with its defaults."""
        from vitdfq.evaluation import EvaluationOptions

        return EvaluationOptions(**self.evaluate)

    @property
    def bits(self) -> str:
        """The bits of the section `quantize`."""
        from vitdfq.quantization.policy import DEFAULT_BITS

        return self.quantize.get("bits", DEFAULT_BITS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `load_recipe` reads back to an equal Recipe."""
        content = asdict(self)
        for section in CALLS:
            for key in ("seed", "effort"):  # the recipe's, which the section must follow
                if content[section].get(key) == content[key]:
                    content[section].pop(key, None)
        return {key: value for key, value in content.items() if value is not None}

    def to_yaml(self) -> str:
        """Return the same as YAML, `name` first, without `push`: a published recipe must not upload to its author's place."""
        content = {key: value for key, value in self.to_dict().items() if key != "push"}
        return yaml.dump(content, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=120)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; no weights, no images, no network.

    Args:
        source: path of a YAML file, name of a packaged recipe, or the content as a dict.
        overrides: texts `section.key=value`, values as YAML, applied before the check; numbers reach into lists, as in
            `calibrate.steps.0=observe`.

    Raises:
        InputError: no such file; an override without "=".
        RecipeError: not YAML, an unknown key or name, a wrong type, a number out of range; one line with file and line.
    """
    if isinstance(source, Mapping):
        file, document = None, Document("recipe", copy.deepcopy(dict(source)))
    else:
        document = read_file(file := find_recipe(source))
    document = with_bases(document, file)
    for assignment in overrides:
        set_value(document, assignment)
    rename(document)
    check_plain(document)
    content = document.content
    if "evaluate" in content and content["evaluate"] in OFF:
        content["evaluate"] = {"dataset": None}
    if "extends" in content:
        document.fail(("extends",), "belongs in the recipe's file; --set changes the recipe after its bases were read")
    for known in fields(Recipe):
        if callable(known.default_factory) and content.get(known.name) is None:
            content[known.name] = known.default_factory()
    content.setdefault("name", file.stem if file else "recipe")
    check_keywords(document, (), keywords(Recipe) | {"extends": str})

    from vitdfq.quantization.policy import DEFAULT_BITS  # late: torch, timm and all parts of the package
    from vitdfq.recipe.sections import check_sections, takes_seed

    if content.get("effort") is not None and content["calibrate"].get("steps") is None:
        content["calibrate"].setdefault("effort", content["effort"])
    check_sections(document)
    if "method" not in content["synthesize"] and content["synthesize"].get("images") is None:
        from vitdfq.recipe.default_images import default_images, describe

        given = {key: value for key, value in content["synthesize"].items() if value is not None}
        bits = [content["quantize"].get("bits", DEFAULT_BITS), *content["also_bits"]]
        content["synthesize"], reason = default_images(given, *bits)
        logger.info(f"synthesize: {describe(content['synthesize'])}, since the recipe names no method; {reason}")
    for section in CALLS:
        if takes_seed(section):
            content[section].setdefault("seed", content.get("seed", 0))
    with document.blaming():
        return Recipe(**content)


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value out each time; aliases are not read back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
