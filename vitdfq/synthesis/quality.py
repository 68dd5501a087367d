"""How good images are, measured without labels and without real images."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def quality(teacher: Any, images: Tensor, *, batch_size: int = 32) -> dict[str, float]:
    """Measure images (N, 3, H, W) with the teacher.

    Returns:
        class_confidence: mean probability of the predicted class, from 1/C to 1.
        diversity: mean of 1 - cosine between the pre-logits features of two different images; 0 when all look alike to
            the teacher (or there is only one).
        num_classes_seen: how many different classes are predicted.
    """
    device = next(teacher.parameters()).device
    features, probabilities = [], []
    for batch in images.split(batch_size):
        tokens = teacher.forward_features(batch.to(device))
        features.append(teacher.forward_head(tokens, pre_logits=True).float())
        probabilities.append(teacher.forward_head(tokens).float().softmax(-1))
    directions, prediction = normalize(torch.cat(features), dim=-1), torch.cat(probabilities).max(-1)
    count = len(images)
    # Σ over pairs of the cosine, from the length of the sum of the unit vectors: no N x N matrix.
    cosines = directions.sum(0).square().sum().item() - count
    return {
        "class_confidence": prediction.values.mean().item(),
        "diversity": 1 - cosines / (count * (count - 1)) if count > 1 else 0.0,
        "num_classes_seen": float(prediction.indices.unique().numel()),
    }
