"""Images of several kinds in one set: each shows a student what the others lack."""

from collections import Counter
from collections.abc import Mapping

from vitdfq.synthesis.seeds import derived

OWN = "self"  # the kind of an image that is the method's own


def kinds(num_images: int, mix: Mapping[str, float]) -> list[str]:
    """Return what each image is: OWN or a name of `mix`, shares evenly spread; what is left of the shares is OWN's.

    A kind falls due when it is furthest behind its share, so image i is the same kind in a set of any size.
    """
    shares = {OWN: 1 - sum(mix.values()), **mix}
    order: list[str] = []
    made: Counter[str] = Counter()
    for index in range(num_images):
        due = max(shares, key=lambda kind: shares[kind] * (index + 1) - made[kind])
        made[due] += 1
        order.append(due)
    return order


def seed_of(kind: str, seed: int) -> int:
    """Return the seed of one kind: presets that start from the same noise and classes would make similar images."""
    return seed if kind == OWN else derived(seed, "among", kind)  # the stream's name is part of every image: it stays
