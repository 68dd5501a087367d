"""Random streams named by their purpose, so that a number does not depend on the order in which streams are used."""

import hashlib

import torch


def generator(seed: int, *path: str | int) -> torch.Generator:
    """Return the CPU generator of one purpose, such as `generator(0, "noise", 7)`.

    All streams are on the CPU whatever the teacher's device, so that a GPU run starts from the same images as a CPU run.
    A new purpose leaves all other streams as they are: adding a loss that draws does not change the initial noise.
    """
    return torch.Generator().manual_seed(derived(seed, *path))


def derived(seed: int, *path: str | int) -> int:
    """Return the seed of one purpose: 32 bits of a hash, because torch's CPU generator ignores the higher bits."""
    digest = hashlib.sha256("/".join(map(str, (seed, *path))).encode()).digest()
    return int.from_bytes(digest[:4], "little")
