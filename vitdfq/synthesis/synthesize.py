"""`synthesize`: calibration images from a teacher alone."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.gradients import with_gradients
from vitdfq.common.options import build_options, takes_options
from vitdfq.data import read_own_images
from vitdfq.models import checked_images, require_float
from vitdfq.runtime.run import Run
from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.inversion.optimize import batches_of, images_in_a_batch
from vitdfq.synthesis.mix import SELF, kinds, seed_of
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.token_pruning import prunable
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.resolve import ENGINES, parts_of
from vitdfq.synthesis.targets.views import target_class
from vitdfq.synthesis.teacher_filter import for_teacher
from vitdfq.synthesis.without_attention import without_attention
from vitdfq.synthesis.without_classes import left_out, require_no_classes, why_classes, with_possible_mix

logger = logging.getLogger(__name__)


@takes_options(SynthesisOptions)
@with_gradients
def synthesize(teacher: nn.Module, *, options: SynthesisOptions | None = None, run: Run | None = None, **keywords: Any) -> Tensor:
    """Synthesize calibration images from the teacher alone, without any real image.

        images = synthesize(teacher, method="psaq", num_images=32, steps=500)

    Image i depends on the teacher, the method and its options, `seed` and i; beyond rounding it does not depend on `batch_size`
    or `num_images`. Where a loss compares images or a decoder makes them, it also depends on the others of its group: images 0
    to 15, 16 to 31 and so on. The global random state is neither read nor changed.

    With `images` the images are read from files, not synthesized.

    A teacher that gives features has no classes to draw labels of: losses that compare classes are left out, which a message
    says, and methods that are nothing without them are refused.

    Args:
        teacher: a model of `load_teacher`: in eval mode, attention opened. It is left unchanged.
        options: all options as one object, in place of keywords.
        run: keeps finished batches, so that an interrupted call goes on; shares them over processes; receives the progress.
        keywords: the fields of `SynthesisOptions`, where they are documented.

    Returns:
        (num_images, 3, H, W) normalized images, float32 on the CPU, within the range of the teacher's normalization.

    Raises:
        ValueError: an unknown name or option, a number out of range, or a loss that stopped being finite; the teacher gives
            features, and the method needs classes, or labels are asked for; `images` do not fit the teacher.
        InputError: `images` cannot be read, see `data/own_images.py`.
    """
    options, run = options or build_options(SynthesisOptions, keywords, where="synthesize"), run or Run()
    require_float(teacher, "synthesize")
    if options.images is not None:
        return checked_images(teacher, read_own_images(teacher, options.images, options.num_images))
    facts = TeacherFacts.of(teacher)
    check_classes(options, facts)
    method = method_for(teacher, options)
    if options.resolved().steps and not method.steps:
        logger.info(
            f"synthesize: {options.method} takes images of {options.resolved().rendered}, which suit the teacher: no steps"
        )
    elif without := _left_out(options, method, facts):
        logger.info(f"synthesize: the teacher gives features; left out: {'; '.join(without)}")
    order = kinds(options.num_images, method.mix)
    images_of = {
        kind: iter(_images(teacher, facts, part, order.count(kind), kind, options, run))
        for kind, part in parts_of(method).items()
        if kind in order
    }
    images = torch.stack([next(images_of[kind]) for kind in order])
    if not images.isfinite().all():
        raise ValueError("synthesis ended in images that are not finite; try a smaller lr")
    return images


def method_for(teacher: nn.Module, options: SynthesisOptions) -> Method:
    """Return the method that makes the images of these options for a teacher: a preset may choose by what suits it."""
    return for_teacher(options.resolved(), teacher, TeacherFacts.of(teacher), options.seed)


def presets_used(teacher: nn.Module, options: SynthesisOptions) -> list[str]:
    """Return the presets that make the images for a teacher, those of the mix included; none for images of the user's own."""
    if options.images is not None:
        return []
    method = method_for(teacher, options)
    is_rendered = options.resolved().steps and not method.steps
    return [str(options.resolved().rendered) if is_rendered else options.method, *method.mix]


@dataclass(frozen=True)
class ImageTarget:
    """What an image was made for: its main class, and the kind of its label, a key of `targets.labels.LABELS`."""

    main_class: int
    labels: str


def image_targets(teacher: nn.Module, options: SynthesisOptions) -> list[ImageTarget | None]:
    """Return the target of each image that `synthesize` makes with these options.

    None: a procedural image or one of the user's own, or the teacher gives features.
    """
    if options.images is not None:
        return [None] * options.num_images
    facts, method = TeacherFacts.of(teacher), method_for(teacher, options)
    parts, order, targets = parts_of(method), kinds(options.num_images, method.mix), []
    for index, kind in enumerate(order):
        of_kind = order[:index].count(kind)  # the index among the images of this kind
        main_class = target_class(of_kind, seed_of(kind, options.seed), parts[kind], facts)
        targets.append(None if main_class is None else ImageTarget(main_class, parts[kind].labels))
    return targets


def procedural_kinds(teacher: nn.Module, num_images: int, seed: int) -> dict[str, Tensor]:
    """Return procedural images of every kind, each (num_images, 3, H, W), by kind: what a teacher may meet, without a model."""
    return {kind: synthesize(teacher, method=kind, num_images=num_images, seed=seed) for kind in PROCEDURAL}


def check_classes(options: SynthesisOptions, facts: TeacherFacts) -> None:
    """Raise ValueError where the method needs more classes than the teacher has; nothing is computed."""
    parts = parts_of(with_possible_mix(options.resolved(), facts))
    losses_of = {kind: part for kind, part in parts.items() if part.losses}
    if losses_of and facts.num_classes == 1:
        raise ValueError("synthesis needs a teacher that tells classes apart, this one has 1")
    if facts.num_classes:
        return
    for key in ("labels", "label_range"):
        if (value := getattr(options, key)) is not None:
            raise ValueError(f"{key} {value!r} is about targets of classes, and the teacher gives features: leave it out")
    for kind, part in losses_of.items():
        require_no_classes(repr(_name(kind, options)), part)


def _left_out(options: SynthesisOptions, method: Method, facts: TeacherFacts) -> list[str]:
    """What a teacher that gives features leaves out: presets of the mix, and losses of those that stay."""
    if facts.num_classes:
        return []
    presets = [
        f"the images of {name}" for name in options.resolved().mix if why_classes(METHODS[name]) and name not in method.mix
    ]
    losses = [(_name(kind, options), left_out(part)) for kind, part in parts_of(method).items() if part.losses]
    return presets + [f"{' and '.join(names)} of {name}" for name, names in losses if names]


def _name(kind: str, options: SynthesisOptions) -> str:
    return options.method if kind == SELF else kind


def keep_batches(images: Tensor, teacher: nn.Module, options: SynthesisOptions, run: Run) -> int:
    """Keep the batches of an earlier synthesis in `run`, so that `synthesize` makes only the others.

    Image i does not depend on the number of images, so a batch that is whole in both sets is the same in both, to the byte.

    Args:
        images: (M, 3, H, W), of these options with M in place of `num_images`.
        run: what `synthesize` will be given.

    Returns:
        how many images are kept; 0 for images of a generator, and for procedural ones, which take no time.
    """
    facts = TeacherFacts.of(teacher)
    method = method_for(teacher, options)
    before, now = kinds(len(images), method.mix), kinds(options.num_images, method.mix)
    num_kept = 0
    for kind, part in parts_of(method).items():
        part = without_attention(part, facts)
        if part.engine != "images" or not part.steps or kind not in before or kind not in now:
            continue
        of_kind = images[[index for index, other in enumerate(before) if other == kind]]
        size = images_in_a_batch(part, facts, options.batch_size)
        needed = batches_of(now.count(kind), size)
        for name, batch in batches_of(len(of_kind), size).items():
            if name in needed:
                run.part(kind).checkpoint(name, {"images": of_kind[batch.start : batch.stop]})
                num_kept += len(batch)
    return num_kept


def _images(
    teacher: nn.Module, facts: TeacherFacts, method: Method, count: int, kind: str, options: SynthesisOptions, run: Run
) -> Tensor:
    """The images of one kind of the mix, (count, 3, H, W)."""
    method = without_attention(method, facts)
    if method.prune_at and options.prune_at is None and not prunable(teacher, facts):
        logger.info("synthesize: no patch can be pruned in a teacher without class token; all stay")
        method = replace(method, prune_at=())
    if method.steps == 0:
        return procedural_images(teacher, facts, method, count, options.seed)
    return ENGINES[method.engine](
        teacher,
        facts,
        method,
        num_images=count,
        batch_size=options.batch_size,
        seed=seed_of(kind, options.seed),
        run=run.part(kind),
    )
