"""Measures of image quality that need neither labels nor real images."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.models import attention_sites, mean_over_tokens, record
from vitdfq.models.norms import NORMS
from vitdfq.models.record import INPUT
from vitdfq.training.output_distance import run_to_outputs

FLAT = 1e-6  # least variance: that of identical tokens is 0


@torch.no_grad()
def quality(teacher: Any, images: Tensor, *, batch_size: int = 32) -> dict[str, float | None]:
    """Measure images (N, 3, H, W) with the teacher, `batch_size` at a time.

    Returns:
        class_confidence: mean probability of the predicted class, from 1/C to 1. None for a teacher that gives features.
        diversity: mean of 1 - cosine between the pre-logits features of two different images; 0 for a single image or
            identical features.
        num_classes_seen: number of different predicted classes. None for a teacher that gives features.
        layer_norm_distance: distance of the norms' normalized inputs from the standard normal, see `NormMoments`; as a
            rule the smaller the better. None for a teacher without a LayerNorm or RMSNorm on tokens.
    """
    weights = next(teacher.parameters())
    features: list[Tensor] = []
    probabilities: list[Tensor] = []  # none of a teacher that gives features
    norms = {name: NormMoments() for name in _token_norms(teacher)}
    prefix = _prefix(teacher)
    with record(teacher, [name + INPUT for name in norms]) as recorded:
        for batch in images.split(batch_size):
            outputs = run_to_outputs(teacher, batch.to(weights))  # device and precision
            features.append(mean_over_tokens(outputs.pooled).float())
            if outputs.logits is not None:
                probabilities.append(outputs.logits.float().softmax(-1))
            for name, moments in norms.items():
                tokens = recorded[name + INPUT]
                if tokens.ndim > 2:  # not pooled
                    moments.add(tokens[:, prefix[1] :] if tokens.shape[1] == prefix[0] else tokens)
    directions = normalize(torch.cat(features), dim=-1)
    prediction = torch.cat(probabilities).max(-1) if probabilities else None
    count = len(images)
    # The sum of cosines over pairs is |Σ unit vectors|² - N: no N x N matrix.
    cosines = directions.sum(0).square().sum().item() - count
    distances = [moments.distance() for moments in norms.values() if moments.count]
    return {
        "class_confidence": prediction.values.mean().item() if prediction else None,
        "diversity": 1 - cosines / (count * (count - 1)) if count > 1 else 0.0,
        "num_classes_seen": float(prediction.indices.unique().numel()) if prediction else None,
        "layer_norm_distance": sum(distances) / len(distances) if distances else None,
    }


class NormMoments:
    """Moments over images and tokens of each channel of x̂ = (t - mean(t)) / std(t), the normalized input of a LayerNorm.

    A LayerNorm stores no statistics of the training data, and the moments of a single channel of x̂ are unknown. Over all
    channels x̂ has mean 0 and variance 1, so N(0, 1) is the assumption with the least information. This is a heuristic of this
    library: natural images have a distance too, as a rule a smaller one than noise or flat images.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total, self.squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Add tokens (..., D)."""
        tokens = tokens.flatten(0, -2).float()
        unit = (tokens - tokens.mean(-1, keepdim=True)) / tokens.var(-1, correction=0, keepdim=True).clamp(min=FLAT).sqrt()
        self.count += len(unit)
        self.total = self.total + unit.sum(0).cpu()
        self.squares = self.squares + unit.square().sum(0).cpu()

    def distance(self) -> float:
        """Return KL(N(μ, σ²) ‖ N(0, 1)) = (σ² + μ² - 1 - ln σ²) / 2, mean over channels."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=FLAT)
        return ((variance + mean.square() - 1 - variance.log()) / 2).mean().item()


def _token_norms(teacher: Any) -> list[str]:
    """Return the norms on whole tokens: not those inside an attention, which normalize queries and keys per head.

    Among them are RMSNorms, which a rotation of the residual stream leaves in place of LayerNorms.
    """
    inside = tuple(f"{site.name}." for site in attention_sites(teacher))
    return [name for name, part in teacher.named_modules() if isinstance(part, NORMS) and not name.startswith(inside)]


def _prefix(teacher: Any) -> tuple[int, int]:
    """Return (tokens per image, prefix tokens among them), to measure patches only."""
    site = next(iter(attention_sites(teacher)), None)
    if site is None:  # no attention over a grid of patches
        return 0, 0
    return site.num_prefix_tokens + site.grid[0] * site.grid[1], site.num_prefix_tokens
