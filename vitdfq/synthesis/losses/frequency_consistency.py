"""Classes shall be seen first in an image's low frequencies, then in a band of higher ones alike: FDD."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Pass, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks

# A round each: where the low pass ends, where the band ends, where it begins; 1 is half the sampling rate of the shorter side.
RADII = ((0.2, 0.4, 0.1), (0.3, 0.5, 0.2), (0.4, 0.6, 0.3), (0.5, 0.7, 0.4), (0.6, 1.0, 0.0))


def place(step: int, steps: int) -> tuple[int, bool]:
    """The round that holds `step`, and whether the step is in its second half."""
    index = step * len(RADII) // steps
    return index, 2 * (step * len(RADII) - index * steps) >= steps


def filtered_passes(ctx: SynthContext, networks: Networks) -> list[Pass]:
    """In a round's first half the low-passed images; in its second half the same without gradients, and the band-passed."""
    index, second_half = place(ctx.step, ctx.steps)
    low, outer, inner = RADII[index]
    if not second_half:
        return [networks.run(band_pass(ctx.images, ctx.facts, 0.0, low))]
    with torch.no_grad():
        reference = networks.run(band_pass(ctx.images, ctx.facts, 0.0, low))
    return [reference, networks.run(band_pass(ctx.images, ctx.facts, inner, outer))]


def frequency_consistency(ctx: SynthContext) -> Tensor:
    """Cross-entropy of filtered images to the targets, in five rounds of growing radii.

    A round's first half shows the teacher the low-passed image. Its second half shows a band of higher frequencies, and the
    loss is half its cross-entropy, half KL(prediction on the low-passed image, held fixed ‖ prediction on the band). From
    FDD's published code (`ngrxmu/FDD-DFQ-ViT`), where its other losses see the filtered image as well; here they see the
    image itself.

    Returns:
        (B,)
    """
    *reference, shown = ctx.passes["frequency_consistency"]
    prediction = shown.logits.log_softmax(-1)
    confidence = -(ctx.targets * prediction).sum(-1)
    if not reference:
        return confidence
    wanted = reference[0].logits.log_softmax(-1)
    return 0.5 * confidence + 0.5 * (wanted.exp() * (wanted - prediction)).sum(-1)


def band_pass(images: Tensor, facts: TeacherFacts, inner: float, outer: float) -> Tensor:
    """Keep the frequencies of (B, 3, H, W) whose distance from 0 is from `inner` to `outer`.

    Filters pixel values with black as 0 and takes magnitudes, as FDD does: a band without the mean has values below black.
    """
    span = facts.high - facts.low
    height, width = images.shape[-2:]
    # In cycles a pixel of the shorter side times 2, so that a circle is one in pixels of a square image.
    down = torch.fft.fftfreq(height, device=images.device)[:, None] * 2
    right = torch.fft.rfftfreq(width, device=images.device) * 2
    radius = (down.square() + right.square()).sqrt()
    kept = (radius >= inner) & (radius <= outer)
    spectrum = torch.fft.rfft2((images - facts.low) / span) * kept
    return torch.fft.irfft2(spectrum, s=(height, width)).abs() * span + facts.low
