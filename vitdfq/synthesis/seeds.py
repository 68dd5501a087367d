"""Random streams that depend on what they are for, never on the order in which they are used."""

import hashlib

import torch


def generator(seed: int, *path: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, such as `generator(0, "noise", 7)`.

    Streams are drawn on the CPU on every device, so that a GPU run starts from the same images as a CPU run. Each
    purpose has its own stream, so that adding a loss that draws does not change the noise the images start from.
    """
    return torch.Generator().manual_seed(derived(seed, *path))


def derived(seed: int, *path: str | int) -> int:
    """Return a seed of 32 bits for one purpose: torch's CPU generator ignores the rest."""
    digest = hashlib.sha256("/".join(map(str, (seed, *path))).encode()).digest()
    return int.from_bytes(digest[:4], "little")
