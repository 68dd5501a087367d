"""Image sets that mix several presets: each kind of image teaches a student what the others lack."""

from collections import Counter
from collections.abc import Mapping

from vitdfq.synthesis.seeds import derived

SELF = "self"  # the kind of the images that the method itself makes


def kinds(num_images: int, mix: Mapping[str, float]) -> list[str]:
    """Return the kind of each image: a preset of `mix`, or `SELF` for the share that `mix` leaves.

    The next image is of the kind that is furthest behind its share. Shares are therefore evenly spread, and image i has the
    same kind in a set of any size.
    """
    shares = {SELF: 1 - sum(mix.values()), **mix}
    order: list[str] = []
    counts: Counter[str] = Counter()
    for index in range(num_images):
        behind = max(shares, key=lambda kind: shares[kind] * (index + 1) - counts[kind])
        counts[behind] += 1
        order.append(behind)
    return order


def seed_of(kind: str, seed: int) -> int:
    """Return the seed of one kind: with one seed, presets would share initial noise and classes, and make similar images."""
    return seed if kind == SELF else derived(seed, "among", kind)  # the stream's name is part of every image: it stays
