"""Pearson correlation of rows, of labels and of predictions."""

from torch import Tensor
from torch.nn.functional import normalize


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """(A, C) and (B, C) -> (A, B); 0 where a row is constant."""
    a, b = (normalize(rows - rows.mean(1, keepdim=True), dim=1) for rows in (a, b))
    return a @ b.mT
