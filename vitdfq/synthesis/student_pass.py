"""The pass through a fake-quantized student, for losses that compare it with the teacher."""

from vitdfq.synthesis.context import Pass, SynthContext
from vitdfq.synthesis.networks import Networks


def student_pass(ctx: SynthContext, networks: Networks, *, bits: str | None = None, refresh_every: int = 100) -> list[Pass]:
    """Run a student on the images that the teacher saw, with gradients to them (straight through the rounding).

    Its ranges are fitted to these images every `refresh_every` steps, so what it says of an image depends on the batch. A run of
    100 steps fits them once: every 10 steps did not help there (zoo:deit, W3A3, 32 images, KL to the teacher of three seeds: AGM
    .0534 once, .0572 every 10; V2-style .0608 and .0609).
    `bits` are by default those of the student that learns in turn with a generator, "w4a4" where none does.

    Raises:
        ValueError: unknown bits, or `refresh_every` below 1.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every is a number of steps, at least 1, got {refresh_every}")
    student = networks.student(bits, ctx.images.detach(), ctx.step, refresh_every)
    return [networks.run(ctx.images, student)]
