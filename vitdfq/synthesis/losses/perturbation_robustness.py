"""What the teacher sees shall survive small changes of image and weights (RIS-style)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from vitdfq.synthesis.objective.context import Pass, SynthContext
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.perturbations import add_noise, augment, perturbed_weights
from vitdfq.synthesis.seeds import generator

NOISE_IMAGES = 8  # on which the threshold is measured
LEAST_BETWEEN = 1e-4


def perturbed_passes(
    ctx: SynthContext, networks: Networks, *, inputs: int = 2, weights: int = 1, rel: float = 0.05, epsilon: float = 0.0
) -> list[Pass]:
    """Run the teacher on `inputs` changed images and with `weights` changed sets of weights.

    The first changed images have white noise added, the others an augmentation chosen at random for each view; in a sparse run,
    where what moves would leave the patches that are shown, all have noise added. `rel` is the
    deviation of the noise on a weight as a share of the weight's own. Where `epsilon` is not 0, images of noise follow: as they
    are, then changed alike.
    """
    if inputs < 0 or weights < 0 or inputs + weights == 0:
        raise ValueError(f"perturbation_robustness needs a perturbation, got inputs={inputs} and weights={weights}")
    changed = [
        perturbed_weights(networks.teacher, generator(ctx.seed, "perturbed weights", number, ctx.step), rel)
        for number in range(weights)
    ]

    def passes(images: Tensor, rngs: list[torch.Generator]) -> list[Pass]:
        views = [(augment if number and ctx.kept is None else add_noise)(images, rngs) for number in range(inputs)]
        return [networks.run(view) for view in views] + [networks.run(images, parameters=change) for change in changed]

    found = passes(ctx.images, ctx.generators("perturbations"))
    if epsilon:
        rngs = [generator(ctx.seed, "perturbed noise", number) for number in range(NOISE_IMAGES)]
        noise = torch.stack([torch.randn(ctx.images.shape[1:], generator=rng) for rng in rngs]).to(ctx.images)
        with torch.no_grad(), networks.all_patches():
            found += [networks.run(noise), *passes(noise, rngs)]
    return found


def perturbation_robustness(
    ctx: SynthContext,
    *,
    w_f: float = 1.0,
    w_p: float = 0.5,
    tau_f: float = 0.0,
    tau_p: float = 0.0,
    epsilon: float = 0.0,
) -> Tensor:
    """RIS-style robustness (arXiv 2310.03661): how much features and predictions change under small perturbations.

    The paper's equations were not available to us; this is our reading of the abstract. Feature inconsistency is the mean over
    the perturbed passes of 1 - cosine, prediction inconsistency that of the L1 distance of probabilities, from 0 to 2. Our
    deviation: the first is divided by the mean 1 - cosine between two images of the batch, without gradient, because a teacher
    to which all images look alike changes little under any perturbation. A batch of one image has no such distance: it is 1.
    Alone the loss still draws images together; beside it belongs one that keeps them apart, such as class_confidence.

    Args:
        w_f: weight of the feature inconsistency.
        w_p: weight of the prediction inconsistency.
        tau_f: feature inconsistency that costs nothing.
        tau_p: prediction inconsistency that costs nothing.
        epsilon: more that costs nothing: this share of the inconsistency of eight images of noise.

    Returns:
        (B,)
    """
    passes = ctx.passes["perturbation_robustness"]
    count = (len(passes) - 1) // 2 if epsilon else len(passes)
    features, predictions = inconsistency(ctx, passes[:count])
    allowed_f, allowed_p = torch.tensor(tau_f), torch.tensor(tau_p)
    if epsilon:
        of_noise = inconsistency(passes[count], passes[count + 1 :])
        allowed_f, allowed_p = tau_f + epsilon * of_noise[0].mean(), tau_p + epsilon * of_noise[1].mean()
    return w_f * (features - allowed_f).relu() + w_p * (predictions - allowed_p).relu()


def inconsistency(clean: Pass, changed: list[Pass]) -> tuple[Tensor, Tensor]:
    """Return how much features (in units of the distance between images) and predictions differ, each (B,)."""
    turned = torch.stack([1 - cosine_similarity(clean.features, other.features) for other in changed]).mean(0)
    moved = [(clean.logits.softmax(1) - other.logits.softmax(1)).abs().sum(1) for other in changed]
    return turned / between(clean.features), torch.stack(moved).mean(0)


def between(features: Tensor) -> Tensor:
    """Return the mean 1 - cosine between two different rows of (B, D), without gradient, at least 1e-4; 1 for one row. 0-d."""
    count, directions = len(features), normalize(features.detach(), dim=1)
    if count == 1:
        return features.new_ones(())
    distances = 1 - directions @ directions.mT
    return ((distances.sum() - distances.trace()) / (count * (count - 1))).clamp(min=LEAST_BETWEEN)
