"""Weighted k-NN classification of features, after DINO's protocol (arXiv 2104.14294)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.runtime.run import Run

TEMPERATURE = 0.07
QUERIES, NEIGHBORS = 256, 65_536  # features in one matrix product


@dataclass(frozen=True)
class Bank:
    """The neighbors.

    Attributes:
        features: (M, D) unit vectors, on the device that searches.
        targets: (M,) int64, the class of each, 0 to C - 1.
        classes: (C,) int64, the label of each class, sorted.
    """

    features: Tensor
    targets: Tensor
    classes: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, device: torch.device) -> "Bank":
        """Make a bank of features (M, D) and labels (M,)."""
        classes, targets = labels.unique(return_inverse=True)
        return cls(F.normalize(features, dim=1).to(device), targets.to(device), classes)

    def numbers_of(self, labels: Tensor) -> Tensor:
        """Return the number of each label's class; C for a label that no neighbor has, and -1 for none."""
        places = torch.searchsorted(self.classes, labels).clamp(max=len(self.classes) - 1)
        numbers = torch.where(self.classes[places] == labels, places, len(self.classes))
        return torch.where(labels < 0, labels, numbers)


def vote(features: Tensor, bank: Bank, k: int, run: Run | None = None) -> Tensor:
    """Return the logarithms of the classes' shares of the votes, (N, C) float32 on the CPU; -inf for a class without a vote.

    The `k` neighbors of the highest cosine similarity vote, each with the weight exp(similarity / 0.07).

    Args:
        features: (N, D), on the CPU.
        bank: M >= k neighbors.
        k: how many of them vote.
        run: shares the images over processes.
    """
    parts = list(F.normalize(features, dim=1).split(QUERIES))
    return torch.cat((run or Run()).split(parts, lambda queries: _vote(queries.to(bank.features.device), bank, k)))


def _vote(queries: Tensor, bank: Bank, k: int) -> Tensor:
    nearest, targets = queries.new_zeros(len(queries), 0), bank.targets.new_zeros(len(queries), 0)
    for block, block_targets in zip(bank.features.split(NEIGHBORS), bank.targets.split(NEIGHBORS), strict=True):
        similarities, places = (queries @ block.T).topk(min(k, len(block)), dim=1)
        joined = torch.cat([nearest, similarities], dim=1)
        nearest, best = joined.topk(min(k, joined.shape[1]), dim=1)
        targets = torch.cat([targets, block_targets[places]], dim=1).gather(1, best)
    weights = (nearest / TEMPERATURE).softmax(dim=1)  # shares: the same classes as with exp(similarity / 0.07)
    votes = queries.new_zeros(len(queries), len(bank.classes)).scatter_add_(1, targets, weights)
    return votes.log().cpu()
