"""Procedural images, with an optional selection of those whose teacher features are far apart."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.models import mean_over_tokens
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL

BLOCK = 32  # images that are selected together, from a pool of `Method.candidates` times as many


@torch.no_grad()
def procedural_images(teacher: Any, facts: TeacherFacts, method: Method, count: int, seed: int) -> Tensor:
    """Return (count, 3, H, W) images of the procedure `method.start`, on the CPU.

    With `method.candidates` above 1, so many times the images are rendered and `farthest_point_sampling` selects among them.
    Every block of 32 images has its own pool and takes from it in a fixed order, so that image i does not depend on `count`.
    """

    def render(indices: range) -> Tensor:
        return torch.stack([PROCEDURAL[method.start](index, seed, facts) for index in indices])

    if method.candidates == 1:
        return render(range(count))
    blocks: list[Tensor] = []
    for first in range(0, count, BLOCK):
        pool = render(range(first * method.candidates, (first + BLOCK) * method.candidates))
        features = [
            mean_over_tokens(teacher.forward_head(teacher.forward_features(part.to(facts.low.device)), pre_logits=True))
            for part in pool.split(BLOCK)
        ]
        blocks.append(pool[farthest_point_sampling(torch.cat(features), min(BLOCK, count - first))])
    return torch.cat(blocks)


def farthest_point_sampling(features: Tensor, count: int) -> list[int]:
    """Return the indices of `count` rows of features (N, D), each as far as possible from the nearest row chosen before.

    The distance is 1 - cosine. The first row has the greatest mean distance to all rows. This is the greedy algorithm of
    Gonzalez (10.1016/0304-3975(85)90224-5) for k centers.
    """
    directions = normalize(features.double(), dim=1)
    distance = 1 - directions @ directions.T
    chosen = [int(distance.mean(1).argmax())]
    nearest = distance[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
    return chosen
