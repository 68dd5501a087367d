"""Orthogonal matrices that spread outliers: randomized Hadamard where a construction fits the size, random otherwise."""

import math

import torch
from torch import Tensor, nn

PALEY_PRIMES = (11, 19, 43)  # q = 3 mod 4 gives a Hadamard matrix of size q + 1: 12, 20, 44


def hadamard(size: int) -> Tensor | None:
    """Return a Hadamard matrix (size, size), entries ±1, float64, H Hᵀ = size · I; None if no construction here fits.

    Sizes are 2^k (Sylvester) and 12, 20 or 44 times 2^k (Kronecker with Paley I): 192, 384, 768, 1280, 1408, 1536, 3072, ...
    """
    split = _split(size)
    if split is None:
        return None
    power, core = split
    matrix = torch.ones(1, 1, dtype=torch.float64) if core == 1 else _paley(core - 1)
    for _ in range(power.bit_length() - 1):
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix


def sylvester(matrix: Tensor) -> tuple[int, Tensor] | None:
    """Return (power of two, core) such that `matrix` is Sylvester's Hadamard matrix of that size ⊗ core; None if it is not."""
    split = _split(len(matrix))
    if split is None:
        return None
    power, length = split
    core, outer = matrix[:length, :length], hadamard(power)
    assert outer is not None  # of a power of two there is one
    return (power, core) if torch.equal(torch.kron(outer.to(core), core), matrix) else None


def _split(size: int) -> tuple[int, int] | None:
    """(power of two, 1 or the size of a Paley matrix) whose product is `size`; None if there are none."""
    for core in (1, *(prime + 1 for prime in PALEY_PRIMES)):
        power = size // core
        if size % core == 0 and power & (power - 1) == 0:
            return power, core
    return None


def random_orthogonal(size: int, seed: int) -> Tensor:
    """Return an orthogonal (size, size), float64: Hadamard with random column signs, or Haar where there is no Hadamard."""
    rng = torch.Generator().manual_seed(seed)
    matrix = hadamard(size)
    if matrix is None:
        q, r = torch.linalg.qr(torch.randn(size, size, generator=rng, dtype=torch.float64))
        return (q * r.diagonal().sign()).contiguous()  # torch.kron fails on the column order of LAPACK
    signs = torch.randint(0, 2, (size,), generator=rng).double() * 2 - 1
    return matrix * signs / math.sqrt(size)


def mean_preserving(size: int, seed: int) -> Tensor:
    """Return an orthogonal Q (size, size), float64, with Q1 = 1, that spreads a channel about as well as a Hadamard matrix.

    A reflection takes the image of 1 under a Hadamard matrix back to 1. It changes the entries by O(1/size) only if that image
    is like noise, and so the matrix has random signs at its rows too: a channel of outliers gets a peak of 1.3 times its rms
    at size 128, against 2.8 for a Haar matrix on the complement of 1.
    """
    rng = torch.Generator().manual_seed(seed + 1_000_003)  # another stream than the column signs
    signs = torch.randint(0, 2, (size, 1), generator=rng).double() * 2 - 1
    q = signs * random_orthogonal(size, seed)
    one = torch.full((size,), 1 / math.sqrt(size), dtype=torch.float64)
    mirror = q @ one - one
    if mirror.norm() < 1e-9:
        return q
    mirror /= mirror.norm()
    return q - 2 * torch.outer(mirror, mirror @ q)


class HadamardTransform(nn.Module):
    """Multiply the last dimension (F) by an orthogonal Hadamard matrix with random signs, as a product of two small ones.

    H_F = H_a ⊗ H_b with a · b = F costs F (a + b) multiplications a token instead of F². Without the signs the mean of all
    channels would gather in the first output: after GELU it is large, and that output would be an outlier. Built in float64.
    """

    left: Tensor
    right: Tensor
    signs: Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        left, right = orthogonal_factors(size, seed)
        signs = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
        for name, factor in (("left", left), ("right", right)):
            drawn = (factor.abs() != factor.abs()[0, 0]).any()  # its last bits depend on the machine's QR: saved, not rebuilt
            self.register_buffer(name, factor, persistent=bool(drawn))
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        blocks = (x * self.signs).unflatten(-1, (len(self.left), len(self.right)))
        return (self.left @ (blocks @ self.right.mT)).flatten(-2)

    def matrix(self) -> Tensor:
        """The same as one matrix (F, F), float64: forward(x) = x @ matrix.T."""
        return torch.kron(self.left.double(), self.right.double()) * self.signs.double()


def orthogonal_factors(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return orthogonal float64 (a, a) and (b, b), a · b = size, as equal as they come.

    Both are Hadamard matrices where the size allows it. Elsewhere (4304 = 16 · 269, the MLP of SigLIP So400M) the most equal
    factors are taken, a random orthogonal matrix where no Hadamard matrix fits; a prime size gets one dense matrix.
    """
    splits = sorted((n for n in range(1, size + 1) if size % n == 0), key=lambda n: n + size // n)
    for left in splits:
        pair = hadamard(left), hadamard(size // left)
        if pair[0] is not None and pair[1] is not None:
            return pair[0] / math.sqrt(left), pair[1] / math.sqrt(size // left)
    return random_orthogonal(splits[0], seed), random_orthogonal(size // splits[0], seed + 1)


def _paley(prime: int) -> Tensor:
    """Paley's first construction: (q + 1, q + 1) from the quadratic residues modulo a prime q = 3 mod 4."""
    squares = {i * i % prime for i in range(1, prime)}
    character = torch.tensor([0.0] + [1.0 if i in squares else -1.0 for i in range(1, prime)], dtype=torch.float64)
    index = torch.arange(prime)
    skew = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    skew[0, 1:], skew[1:, 0] = 1.0, -1.0
    skew[1:, 1:] = character[(index[:, None] - index[None, :]) % prime]
    return skew + torch.eye(prime + 1, dtype=torch.float64)
