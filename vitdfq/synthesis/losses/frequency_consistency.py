"""The teacher predicts the targets from low frequencies first, then alike from a band of higher ones: FDD."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Pass, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks

# Per round: end of the low pass, end of the band, start of the band; 1 is the highest frequency of either axis.
RADII = ((0.2, 0.4, 0.1), (0.3, 0.5, 0.2), (0.4, 0.6, 0.3), (0.5, 0.7, 0.4), (0.6, 1.0, 0.0))


def round_of(step: int, steps: int) -> tuple[int, bool]:
    """Return the index of the round that contains `step`, and whether the step is in its second half."""
    index = step * len(RADII) // steps
    return index, 2 * (step * len(RADII) - index * steps) >= steps


def filtered_passes(ctx: SynthContext, networks: Networks) -> list[Pass]:
    """`Loss.passes`: the low-passed images; in the second half of a round without gradients, then the band-passed ones."""
    index, second_half = round_of(ctx.step, ctx.steps)
    low, outer, inner = RADII[index]
    if not second_half:
        return [networks.run(band_pass(ctx.images, ctx.facts, 0.0, low))]
    with torch.no_grad():
        reference = networks.run(band_pass(ctx.images, ctx.facts, 0.0, low))
    return [reference, networks.run(band_pass(ctx.images, ctx.facts, inner, outer))]


def frequency_consistency(ctx: SynthContext) -> Tensor:
    """Return the cross-entropy of filtered images to the targets, in five rounds of growing radii.

    First half of a round: CE(low), of the low-passed image. Second half: ½ CE(band) + ½ KL(low ‖ band), of a band of higher
    frequencies and the prediction on the low-passed image, which has no gradient. From FDD (10.1007/978-981-99-8543-2_17),
    after its published code (github.com/ngrxmu/FDD-DFQ-ViT). There the other losses read the filtered image too; here they read
    the image itself.

    Returns:
        (B,)
    """
    *low, last = ctx.passes["frequency_consistency"]
    prediction = last.logits.log_softmax(-1)
    confidence = -(ctx.targets * prediction).sum(-1)
    if not low:
        return confidence
    reference = low[0].logits.log_softmax(-1)
    return 0.5 * confidence + 0.5 * (reference.exp() * (reference - prediction)).sum(-1)


def band_pass(images: Tensor, facts: TeacherFacts, inner: float, outer: float) -> Tensor:
    """Keep the frequencies of images (B, 3, H, W) at a distance from `inner` to `outer` from 0. Returns (B, 3, H, W).

    Pixel values with black as 0 are filtered and replaced by their magnitudes, as in FDD: without its mean, a band has values
    below black.
    """
    span = facts.high - facts.low
    height, width = images.shape[-2:]
    # Twice the cycles per pixel, so that 1 is the highest frequency of either axis.
    down = torch.fft.fftfreq(height, device=images.device)[:, None] * 2
    right = torch.fft.rfftfreq(width, device=images.device) * 2
    radius = (down.square() + right.square()).sqrt()
    band = (radius >= inner) & (radius <= outer)
    spectrum = torch.fft.rfft2((images - facts.low) / span) * band
    return torch.fft.irfft2(spectrum, s=(height, width)).abs() * span + facts.low
