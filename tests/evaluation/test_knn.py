"""The search for neighbors in blocks, and their votes."""

import torch
from torch.nn import functional as F

from vitdfq.evaluation import knn
from vitdfq.evaluation.knn import Bank, vote

CPU = torch.device("cpu")


def test_blocks_do_not_change_the_votes(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features, queries = torch.randn(50, 8, generator=generator), torch.randn(13, 8, generator=generator)
    bank = Bank.of(features, torch.arange(50) % 7 * 10, CPU)
    whole = vote(queries, bank, k=9)
    monkeypatch.setattr(knn, "QUERIES", 4)
    monkeypatch.setattr(knn, "NEIGHBORS", 6)  # fewer than k in a block
    assert torch.allclose(vote(queries, bank, k=9), whole, atol=1e-6)


def test_votes_are_weighted_by_the_similarity():
    bank = Bank.of(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [-1.0, 0.0]]), torch.tensor([5, 9, 9, 7]), CPU)
    shares = vote(torch.tensor([[2.0, 0.0]]), bank, k=3).exp()
    weights = torch.tensor([1.0, 0.6, 0.6]).div(0.07).exp()
    assert torch.allclose(shares, torch.tensor([[weights[0], 0.0, weights[1] + weights[2]]]) / weights.sum())
    assert bank.numbers_of(torch.tensor([9, 5, 8, -1])).tolist() == [2, 0, 3, -1]
    nearer = Bank(F.normalize(torch.randn(4, 2), dim=1), torch.tensor([0, 1, 1, 0]), torch.tensor([1, 2]))
    assert vote(torch.randn(1, 2), nearer, k=4).isfinite().all()
