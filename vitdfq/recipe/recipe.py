"""Recipe: what `load_recipe` returns."""

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from vitdfq.evaluation import EvaluationOptions
    from vitdfq.synthesis.options import SynthesisOptions

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


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value out each time; aliases are not read back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
