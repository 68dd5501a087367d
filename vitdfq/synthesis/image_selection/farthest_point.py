"""Painted images that the teacher tells apart: many are painted, those far from each other are kept."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL

BLOCK = 32  # images that are chosen to be far from each other, from a pool of their own


@torch.no_grad()
def procedural_images(teacher: Any, facts: TeacherFacts, method: Method, count: int, seed: int) -> Tensor:
    """Return (count, 3, H, W) images as `method.start` paints them, on the CPU; of `method.candidates` for each one is kept.

    A block of 32 images has a pool of its own and takes from it in a fixed order, so image i does not depend on `count`.
    """

    def paint(indices: range) -> Tensor:
        return torch.stack([PROCEDURAL[method.start](index, seed, facts) for index in indices])

    if method.candidates == 1:
        return paint(range(count))
    blocks = []
    for first in range(0, count, BLOCK):
        pool = paint(range(first * method.candidates, (first + BLOCK) * method.candidates))
        features = [
            teacher.forward_head(teacher.forward_features(part.to(facts.low.device)), pre_logits=True)
            for part in pool.split(BLOCK)
        ]
        blocks.append(pool[farthest_point_sampling(torch.cat(features), min(BLOCK, count - first))])
    return torch.cat(blocks)


def farthest_point_sampling(features: Tensor, count: int) -> list[int]:
    """Choose `count` of the rows (N, D), each as far as can be from the nearest chosen before; distance is 1 - cosine.

    The first is farthest from all on average (Gonzalez' greedy choice of centers).
    """
    directions = normalize(features.double(), dim=1)
    distance = 1 - directions @ directions.T
    chosen = [int(distance.mean(1).argmax())]
    nearest = distance[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
    return chosen
