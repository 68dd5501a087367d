"""`synthesize`: calibration images from a teacher alone."""

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.gradients import with_gradients
from vitdfq.common.options import build_options, takes_options
from vitdfq.models import require_classes, require_float
from vitdfq.runtime.run import Run
from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.inversion.optimize import batches_of, images_in_a_batch
from vitdfq.synthesis.mix import kinds, seed_of
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.token_pruning import prunable
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.resolve import ENGINES, parts_of
from vitdfq.synthesis.teacher_filter import for_teacher
from vitdfq.synthesis.without_attention import without_attention

logger = logging.getLogger(__name__)


@takes_options(SynthesisOptions)
@with_gradients
def synthesize(teacher: nn.Module, *, options: SynthesisOptions | None = None, run: Run | None = None, **keywords: Any) -> Tensor:
    """Synthesize calibration images from the teacher alone, without any real image.

        images = synthesize(teacher, method="psaq", num_images=32, steps=500)

    Image i depends on the teacher, the method and its options, `seed` and i; beyond rounding it does not depend on `batch_size`
    or `num_images`. Where a loss compares images or a decoder makes them, it also depends on the others of its group: images 0
    to 15, 16 to 31 and so on. The global random state is neither read nor changed.

    Args:
        teacher: a model of `load_teacher`: in eval mode, attention opened. It is left unchanged.
        options: all options as one object, in place of keywords.
        run: keeps finished batches, so that an interrupted call goes on; shares them over processes; receives the progress.
        keywords: the fields of `SynthesisOptions`, where they are documented.

    Returns:
        (num_images, 3, H, W) normalized images, float32 on the CPU, within the range of the teacher's normalization.

    Raises:
        ValueError: an unknown name or option, a number out of range, or a loss that stopped being finite.
    """
    options, run = options or build_options(SynthesisOptions, keywords, where="synthesize"), run or Run()
    require_float(teacher, "synthesize")
    facts = TeacherFacts.of(teacher)
    method = for_teacher(options.resolved(), teacher, facts, options.seed)
    if any(part.losses for part in parts_of(method).values()):
        _require_classes(teacher, facts)
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


def procedural_kinds(teacher: nn.Module, num_images: int, seed: int) -> dict[str, Tensor]:
    """Return procedural images of every kind, each (num_images, 3, H, W), by kind: what a teacher may meet, without a model."""
    return {kind: synthesize(teacher, method=kind, num_images=num_images, seed=seed) for kind in PROCEDURAL}


def _require_classes(teacher: nn.Module, facts: TeacherFacts) -> None:
    require_classes(teacher, "synthesis with losses")
    if facts.num_classes < 2:
        raise ValueError(f"synthesis needs a teacher that tells classes apart, this one has {facts.num_classes}")


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
    method = for_teacher(options.resolved(), teacher, facts, options.seed)
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
