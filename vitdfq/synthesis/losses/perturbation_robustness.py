"""Features and predictions are robust to small perturbations of images and weights (RIS-style)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from vitdfq.synthesis.objective.context import Pass, SynthContext
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.perturbations import add_noise, augment, perturbed_weights
from vitdfq.synthesis.seeds import generator

NOISE_IMAGES = 8  # on which the tolerance is measured
LEAST_DISTANCE = 1e-4  # between images, so that the inconsistency stays finite


def perturbed_passes(
    ctx: SynthContext, networks: Networks, *, inputs: int = 2, weights: int = 1, rel: float = 0.05, epsilon: float = 0.0
) -> list[Pass]:
    """`Loss.passes`: run the teacher on `inputs` perturbed images and with `weights` perturbed sets of weights.

    Args:
        ctx: the teacher's plain pass.
        networks: runs the teacher.
        inputs: passes with perturbed images: the first with white noise, the others with a random augmentation per view. With
            pruned patches all have noise, because augmentations would move content out of the kept patches.
        weights: passes with perturbed weights.
        rel: standard deviation of the noise on a weight tensor, as a share of the tensor's.
        epsilon: unless 0, the same passes follow for images of noise, after an unperturbed one.

    Raises:
        ValueError: there is no perturbation.
    """
    if inputs < 0 or weights < 0 or inputs + weights == 0:
        raise ValueError(f"perturbation_robustness needs a perturbation, got inputs={inputs} and weights={weights}")
    changes = [
        perturbed_weights(networks.teacher, generator(ctx.seed, "perturbed weights", number, ctx.step), rel)
        for number in range(weights)
    ]

    def passes(images: Tensor, rngs: list[torch.Generator]) -> list[Pass]:
        views = [(augment if number and ctx.kept_tokens is None else add_noise)(images, rngs) for number in range(inputs)]
        return [networks.run(view) for view in views] + [networks.run(images, parameters=change) for change in changes]

    results = passes(ctx.images, ctx.generators("perturbations"))
    if epsilon:
        rngs = [generator(ctx.seed, "perturbed noise", number) for number in range(NOISE_IMAGES)]
        noise = torch.stack([torch.randn(ctx.images.shape[1:], generator=rng) for rng in rngs]).to(ctx.images)
        with torch.no_grad(), networks.all_patches():
            results += [networks.run(noise), *passes(noise, rngs)]
    return results


def perturbation_robustness(
    ctx: SynthContext,
    *,
    w_f: float = 1.0,
    w_p: float = 0.5,
    tau_f: float = 0.0,
    tau_p: float = 0.0,
    epsilon: float = 0.0,
) -> Tensor:
    """Return w_f · relu(I_f - tau_f) + w_p · relu(I_p - tau_p), the inconsistency of features and predictions.

    RIS-style (arXiv 2310.03661): the paper's equations were not available to us; this is our reading of the abstract. I_f is
    the mean over the perturbed passes of 1 - cosine of the features; I_p is that of the L1 distance of the probabilities, from
    0 to 2. Our deviation: I_f is divided by the mean 1 - cosine between two images of the batch, without gradient, because
    features that are alike for all images change little under any perturbation. For a batch of one image the divisor is 1.
    Alone the loss still makes images alike; combine it with a loss that separates them, such as class_confidence.

    Args:
        ctx: with the perturbed passes.
        w_f: weight of the feature inconsistency.
        w_p: weight of the prediction inconsistency.
        tau_f: feature inconsistency without cost.
        tau_p: prediction inconsistency without cost.
        epsilon: additional inconsistency without cost: this share of that of eight images of noise.

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


def inconsistency(clean: Pass, perturbed: list[Pass]) -> tuple[Tensor, Tensor]:
    """Return the inconsistency of features, in units of the distance between images, and of predictions, (B,) each."""
    features = [1 - cosine_similarity(clean.features, other.features) for other in perturbed]
    predictions = [(clean.logits.softmax(1) - other.logits.softmax(1)).abs().sum(1) for other in perturbed]
    return torch.stack(features).mean(0) / distance_between(clean.features), torch.stack(predictions).mean(0)


def distance_between(features: Tensor) -> Tensor:
    """Return the mean 1 - cosine of two different rows of (B, D), 0-d, without gradient, at least 1e-4; 1 for a single row."""
    count, directions = len(features), normalize(features.detach(), dim=1)
    if count == 1:
        return features.new_ones(())
    distances = 1 - directions @ directions.mT
    return ((distances.sum() - distances.trace()) / (count * (count - 1))).clamp(min=LEAST_DISTANCE)
