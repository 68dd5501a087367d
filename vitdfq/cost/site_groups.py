"""Sites of equal settings in one line: "blocks.0-11.attn.qkv" stands for twelve."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

Box = tuple[list[int], ...]  # the product of some numbers at each position


def grouped(sites: Iterable[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Return (number of sites, settings) of groups whose sites differ in the numbers of their names only.

    Every site is in one group. The group's name has a range in place of each number: "layers.0-1.blocks.0-2,4.attn.qkv". Groups
    stand in the order of their first sites.

    Args:
        sites: settings, one of which is "name"; the others are compared as text.
    """
    groups: dict[tuple[str, ...], tuple[dict[str, Any], list[tuple[int, ...]]]] = {}
    for site in sites:
        parts = site["name"].split(".")
        pattern = ("{}" if part.isdecimal() else part for part in parts)
        others = (str(value) for key, value in site.items() if key != "name")
        _, numbers = groups.setdefault((".".join(pattern), *others), (site, []))
        numbers.append(tuple(int(part) for part in parts if part.isdecimal()))
    return [
        (math.prod(map(len, box)), site | {"name": pattern.format(*map(ranges, box))})
        for (pattern, *_), (site, numbers) in groups.items()
        for box in boxes(numbers)
    ]


def boxes(places: Sequence[tuple[int, ...]]) -> list[Box]:
    """Return products that together are the places, each of them once; all places have the same length."""
    products: list[Box] = [tuple([number] for number in place) for place in places]
    for axis in reversed(range(len(places[0]))):
        merged: dict[str, Box] = {}
        for box in products:
            along = merged.setdefault(str((box[:axis], box[axis + 1 :])), (*box[:axis], [], *box[axis + 1 :]))[axis]
            along += box[axis]
        products = list(merged.values())
    return products


def ranges(numbers: Iterable[int]) -> str:
    """Return "0-2,5" for 0, 1, 2, 5."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])  # constant along a run
    ends = [(run[0][1], run[-1][1]) for run in (list(pairs) for _, pairs in runs)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)
