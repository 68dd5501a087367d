"""How good images are, measured without labels and without real images."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vitdfq.models import attention_sites, record
from vitdfq.models.record import INPUT

FLAT = 1e-6  # a channel's variance is taken for at least this: that of tokens which are all alike is 0


@torch.no_grad()
def quality(teacher: Any, images: Tensor, *, batch_size: int = 32) -> dict[str, float | None]:
    """Measure images (N, 3, H, W) with the teacher.

    Returns:
        class_confidence: mean probability of the predicted class, from 1/C to 1.
        diversity: mean of 1 - cosine between the pre-logits features of two different images; 0 when all look alike to
            the teacher (or there is only one).
        num_classes_seen: how many different classes are predicted.
        layer_norm_distance: how far what the LayerNorms see is from the standard normal, see `NormMoments`; the nearer to 0
            the better, as a rule. None for a teacher without a LayerNorm on tokens.
    """
    device = next(teacher.parameters()).device
    features, probabilities = [], []
    norms = {name: NormMoments() for name in _token_norms(teacher)}
    prefix = _prefix(teacher)
    with record(teacher, [name + INPUT for name in norms]) as recorded:
        for batch in images.split(batch_size):
            tokens = teacher.forward_features(batch.to(device))
            features.append(teacher.forward_head(tokens, pre_logits=True).float())
            probabilities.append(teacher.forward_head(tokens).float().softmax(-1))
            for name, moments in norms.items():
                seen = recorded[name + INPUT]
                if seen.ndim > 2:  # not pooled
                    moments.add(seen[:, prefix[1] :] if seen.shape[1] == prefix[0] else seen)
    directions, prediction = normalize(torch.cat(features), dim=-1), torch.cat(probabilities).max(-1)
    count = len(images)
    # Σ over pairs of the cosine, from the length of the sum of the unit vectors: no N x N matrix.
    cosines = directions.sum(0).square().sum().item() - count
    distances = [moments.distance() for moments in norms.values() if moments.count]
    return {
        "class_confidence": prediction.values.mean().item(),
        "diversity": 1 - cosines / (count * (count - 1)) if count > 1 else 0.0,
        "num_classes_seen": float(prediction.indices.unique().numel()),
        "layer_norm_distance": sum(distances) / len(distances) if distances else None,
    }


class NormMoments:
    """Moments of each channel of a LayerNorm's input, every token normalised first: x̂ = (t - mean(t)) / std(t).

    A LayerNorm stores no statistics of the data. Of each channel of x̂ over images and tokens it fixes nothing, but the
    channels together have mean 0 and variance 1; the normal distribution N(0, 1) is the guess that assumes least. It is a
    heuristic: natural images are at a distance too, yet as a rule at a smaller one than noise or flat images.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total, self.squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Take in tokens (..., D)."""
        tokens = tokens.flatten(0, -2).float()
        unit = (tokens - tokens.mean(-1, keepdim=True)) / tokens.var(-1, correction=0, keepdim=True).clamp(min=FLAT).sqrt()
        self.count += len(unit)
        self.total = self.total + unit.sum(0).cpu()
        self.squares = self.squares + unit.square().sum(0).cpu()

    def distance(self) -> float:
        """KL(N(μ, σ²) ‖ N(0, 1)) = (σ² + μ² - 1 - ln σ²) / 2 of each channel's moments, mean over the channels."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=FLAT)
        return ((variance + mean.square() - 1 - variance.log()) / 2).mean().item()


def _token_norms(teacher: Any) -> list[str]:
    """LayerNorms on whole tokens: not those inside an attention, which normalise queries and keys a head."""
    inside = tuple(f"{site.name}." for site in attention_sites(teacher))
    return [name for name, part in teacher.named_modules() if isinstance(part, nn.LayerNorm) and not name.startswith(inside)]


def _prefix(teacher: Any) -> tuple[int, int]:
    """(tokens of an image with the prefix, tokens of the prefix); the statistics are those of patches only."""
    site = attention_sites(teacher)[0]
    return site.num_prefix_tokens + site.grid[0] * site.grid[1], site.num_prefix_tokens
