"""`synthesize`: images out of a teacher alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.progress import say
from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.mix import kinds, seed_of
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.token_pruning import prunable
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.resolve import ENGINES, parts_of, resolve_method
from vitdfq.synthesis.teacher_filter import for_teacher


def synthesize(
    teacher: nn.Module,
    *,
    method: str = "sardfq",
    num_images: int = 32,
    steps: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    lr: float | None = None,
    losses: dict | None = None,
    labels: str | None = None,
    label_range: list[float] | None = None,
    max_regions: int | None = None,
    start: str | None = None,
    parametrization: str | None = None,
    precision: str | None = None,
    prune_at: list[float] | None = None,
    engine: str | None = None,
    student: str | None = None,
    group_size: int | None = None,
    mix: dict[str, float] | None = None,
    shelf: PartialResults | None = None,
) -> Tensor:
    """Synthesize calibration images from the teacher alone, without any real image.

    Image i depends on the teacher, the method and its options, `seed` and i; beyond rounding it does not depend on
    `batch_size` or `num_images`. Where a loss compares images or a decoder paints them, it depends on the others of its group
    too: images 0 to 15, 16 to 31 and so on. The global random state is neither read nor changed. Keywords left at None are the
    method's own.

    Args:
        teacher: a model of `load_teacher`: in eval mode, attention opened. It is left as it was.
        method: a preset of `METHODS`, such as "sardfq", "psaq", "mimiq", "gdfq", "dead_leaves" or "noise".
        num_images: how many images to make.
        steps: iterations for each image, or updates of the generator.
        batch_size: images optimised at a time; a matter of speed and memory.
        seed: seed of everything random.
        lr: peak learning rate of Adam on pixels, by default .20, or .25 for models without a class token; or on a generator's
            weights, by default .01.
        losses: changes to the preset, `{name: {weight: 1.0, option: value}}`; weight 0 switches a loss off. From Python
            a loss of your own may stand here: `{"mine": {"function": f, "weight": 1.0}}` with
            `f(ctx: SynthContext) -> (B,)`.
        labels: "soft", "hard" or "low_correlation" targets.
        label_range: lower and upper label logit of the relevant classes in soft targets; by default (5, 10) shifted for
            the number of classes.
        start: what an image is before the first step, "noise" or "dead_leaves".
        parametrization: what the steps move: "pixels", or the weights of a small convolutional "decoder", one a batch.
        precision: of the networks' products, "float32" or "bfloat16" (faster where the hardware has it).
        prune_at: shares of the run at which 30 % of the remaining patches leave the forward pass, those that the class token
            looks at least (SMI); the run gets faster, and only losses on the image itself still move what left. ViT and DeiT
            only; where a preset asks for it and the teacher is another, all patches stay.
        engine: what learns: "images", each by itself, or a "generator" that is trained against the teacher and then paints them.
        student: bits of a quantized student that learns from the teacher in turn with the generator, "w4a4" for example; losses
            that compare with a student see this one.
        group_size: images that depend on each other where they do, by default 16, never split; or that a generator learns from at
            a time, by default 32.
        mix: shares of the images that other presets make, evenly spread, in as many steps: `{"dead_leaves": 0.5}` makes every
            second one a painted one.
        shelf: where finished batches wait for the others, so that an interrupted call goes on.
        max_regions: each image gets 1 to this many regions with a class of their own; 1 switches regions off.

    Returns:
        (num_images, 3, H, W) normalised images, float32 on the CPU, within the range of the teacher's normalisation.

    Raises:
        ValueError: an unknown name or option, a number out of range, or a loss that stopped being finite.
    """
    changes = {"labels": labels, "label_range": label_range, "max_regions": max_regions}
    changes |= {"start": start, "parametrization": parametrization, "precision": precision, "prune_at": prune_at}
    changes |= {"engine": engine, "student": student, "group_size": group_size, "mix": mix}
    resolved = resolve_method(method, losses, steps=steps, lr=lr, **changes)
    if num_images < 1 or batch_size < 1:
        raise ValueError(f"num_images and batch_size must be at least 1, got {num_images} and {batch_size}")
    if teacher.training:
        raise ValueError("the teacher is in training mode: call teacher.eval() first")
    facts = TeacherFacts.of(teacher)
    resolved = for_teacher(resolved, teacher, facts, seed)
    order, parts = kinds(num_images, resolved.mix), parts_of(resolved)

    def make(kind: str, part: Method) -> Tensor:
        count = order.count(kind)
        if part.prune_at and prune_at is None and not prunable(teacher, facts):
            say("synthesize: no patch can leave a teacher without class token; all stay")
            part = replace(part, prune_at=())
        if part.steps == 0:
            return procedural_images(teacher, facts, part, count, seed)
        own, own_seed = (shelf or PartialResults()).part(kind), seed_of(kind, seed)
        with torch.enable_grad():
            return ENGINES[part.engine](teacher, facts, part, num_images=count, batch_size=batch_size, seed=own_seed, shelf=own)

    made = {kind: iter(make(kind, part)) for kind, part in parts.items() if kind in order}
    images = torch.stack([next(made[kind]) for kind in order])
    if not images.isfinite().all():
        raise ValueError("synthesis ended in images that are not finite; try a smaller lr")
    return images
