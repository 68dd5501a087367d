"""The options of `synthesize`, with their defaults."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from vitdfq.common.options import check_counts
from vitdfq.synthesis.presets import DEFAULT_METHOD, OWN, Method
from vitdfq.synthesis.resolve import resolve_method

OWN_IMAGES = Method("Images of your own, from files", losses={}, steps=0)
WITH_OWN_IMAGES = {"images", "method", "num_images", "batch_size", "seed"}  # options that go with images of your own


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
        images: images of your own in place of synthetic ones: a folder of image files, or a safetensors file of one tensor
            (N, 3, H, W), normalized, such as a run's images.safetensors. Image files are resized and cropped as for evaluation.
            The first `num_images` are read; `method` becomes "own".

    Raises:
        ValueError: an unknown name or option, or a number out of range; `images` beside options that shape synthetic ones.
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
    images: str | Path | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_images", "batch_size")
        if self.images is not None:
            self._check_own_images()
        self.resolved()

    def _check_own_images(self) -> None:
        others = {name for name in vars(self) if name not in WITH_OWN_IMAGES and getattr(self, name) is not None}
        others |= set() if self.method in (DEFAULT_METHOD, OWN) else {"method"}
        if others:
            names = ", ".join(sorted(others))
            raise ValueError(f"images: {str(self.images)!r} are read, not synthesized, so leave out {names}")
        object.__setattr__(self, "method", OWN)

    def resolved(self) -> Method:
        """The preset with these changes, checked; of images of your own a method without steps."""
        if self.images is not None:
            return OWN_IMAGES
        names = {field.name for field in fields(self)} & set(Method.__dataclass_fields__) - {"losses"}
        return resolve_method(self.method, self.losses, **{name: getattr(self, name) for name in names})

    def for_method(self, method: str) -> "SynthesisOptions":
        """Options for another preset on the same footing: as many images, and as many steps if that preset takes steps."""
        shared = {name: getattr(self, name) for name in ("num_images", "batch_size", "precision", "seed")}
        options = SynthesisOptions(method=method, **shared)
        return replace(options, steps=self.steps) if options.resolved().losses else options
