"""The options of `synthesize`, with their defaults."""

from dataclasses import dataclass, fields, replace

from vitdfq.common.options import check_counts
from vitdfq.synthesis.presets import DEFAULT_METHOD, Method
from vitdfq.synthesis.resolve import resolve_method


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """Options of `synthesize`. Fields that are None take the value of the preset `method`.

    Attributes:
        method: a preset of `METHODS`, such as "vitdfq", "sardfq", "psaq", "mimiq", "gdfq", "dead_leaves", "scenes" or "noise".
        num_images: how many images to make.
        steps: iterations for each image, or updates of the generator.
        batch_size: images optimized at a time; it changes speed and memory, not the images.
        seed: of everything random.
        lr: peak learning rate of Adam on pixels, by default .20, or .25 for models without a class token; or on a generator's
            weights, by default .01.
        losses: changes to the preset, `{name: {weight: 1.0, option: value}}`; weight 0 switches a loss off. From Python a loss
            of your own may stand here: `{"mine": {"function": f, "weight": 1.0}}` with `f(ctx: SynthContext) -> (B,)`.
        labels: "soft", "hard" or "low_correlation" targets.
        label_range: lower and upper label logit of the relevant classes in soft targets; by default (5, 10) shifted for the
            number of classes.
        max_regions: each image gets 1 to this many regions with a class of their own; 1 switches regions off.
        start: the image before the first step, "noise", "dead_leaves" or "scenes".
        parametrization: the variable of the optimization: "pixels", or the weights of a small convolutional "decoder", one for
            each batch.
        precision: of the networks' products, "float32" or "bfloat16" (faster where the hardware has it).
        prune_at: shares of the run at which 30 % of the remaining patches leave the forward pass, those with the least attention
            from the class token (SMI, ICML 2024). The run gets faster; only losses on the image itself still change pruned
            patches. ViT and DeiT only; where a preset asks for it and the teacher is another, all patches stay.
        engine: "images" optimizes each image by itself; "generator" trains a conditional generator and draws images from it.
        student: bits of a quantized student that is trained in turn with the generator, "w4a4" for example; losses that compare
            with a student use this one.
        group_size: size of the groups of images that depend on each other, where a loss or decoder makes them (by default 16,
            never split), or a generator's batch (by default 32).
        mix: shares of the images that other presets make, evenly spread, in as many steps: `{"dead_leaves": 0.5}` makes every
            second image a procedural one.

    Raises:
        ValueError: an unknown name or option, or a number out of range.
    """

    method: str = DEFAULT_METHOD
    num_images: int = 32
    steps: int | None = None
    batch_size: int = 16
    seed: int = 0
    lr: float | None = None
    losses: dict | None = None
    labels: str | None = None
    label_range: list[float] | None = None
    max_regions: int | None = None
    start: str | None = None
    parametrization: str | None = None
    precision: str | None = None
    prune_at: list[float] | None = None
    engine: str | None = None
    student: str | None = None
    group_size: int | None = None
    mix: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_images", "batch_size")
        self.resolved()

    def resolved(self) -> Method:
        """The preset with these changes, checked."""
        names = {field.name for field in fields(self)} & set(Method.__dataclass_fields__) - {"losses"}
        return resolve_method(self.method, self.losses, **{name: getattr(self, name) for name in names})

    def for_method(self, method: str) -> "SynthesisOptions":
        """Options for another preset on the same footing: as many images, and as many steps if that preset takes steps."""
        shared = {name: getattr(self, name) for name in ("num_images", "batch_size", "precision", "seed")}
        options = SynthesisOptions(method=method, **shared)
        return replace(options, steps=self.steps) if options.resolved().losses else options
