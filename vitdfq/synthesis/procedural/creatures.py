"""Outlines of living things: capsules along a skeleton, smoothly joined."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Draws
from vitdfq.synthesis.procedural.shapes import Shape

Capsule = tuple[float, float, float, float, float, float]  # x, y and radius at both ends


def joined(capsules: list[Capsule], softness: float) -> Shape:
    """Return the smooth union of capsules; `softness` is about the radius of the fillets."""
    ends = torch.tensor(capsules)
    left, top, first, right, bottom, second = (column[:, None, None] for column in ends.T)
    across, down = right - left, bottom - top
    length = (across**2 + down**2).clamp(min=1e-6)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        share = (((x - left) * across + (y - top) * down) / length).clamp(0, 1)
        apart = ((x - left - share * across) ** 2 + (y - top - share * down) ** 2).sqrt()
        return -softness * torch.logsumexp(-(apart - first - share * (second - first)) / softness, 0)

    return distance


def _chain(draws: Draws, start: tuple[float, float], angle: float, lengths: list[float], radii: list[float]) -> list[Capsule]:
    """Return capsules in a row from `start`, each turned a little against the one before it."""
    x, y = start
    capsules: list[Capsule] = []
    for index, length in enumerate(lengths):
        right, down = x + length * math.cos(angle), y + length * math.sin(angle)
        capsules.append((x, y, radii[index], right, down, radii[index + 1]))
        x, y, angle = right, down, angle + draws.uniform(-0.6, 0.6)
    return capsules


def walker(draws: Draws) -> Shape:
    """A body with a head, legs below it and a tail, from the side."""
    length, girth = draws.uniform(0.3, 0.55), draws.uniform(0.12, 0.32)
    slope = draws.uniform(-0.15, 0.15) if draws.chance(0.7) else draws.uniform(-0.9, 0.2)
    front, back = (length, length * slope), (-length, -length * slope)
    capsules = [(*back, girth * draws.uniform(0.7, 1.2), *front, girth * draws.uniform(0.7, 1.2))]
    head = girth * draws.uniform(0.5, 1.1)
    neck = draws.uniform(0.05, 0.6)
    capsules += _chain(draws, front, draws.uniform(-1.5, -0.1), [neck], [girth * 0.7, head * 0.8])
    x, y = capsules[-1][3:5]
    snout = draws.uniform(0.0, 0.35)
    capsules.append((x, y, head, x + snout, y + draws.uniform(-0.05, 0.2), head * draws.uniform(0.3, 0.9)))
    if draws.chance(0.7):  # ears or horns
        for lean in (-0.6, 0.2):
            ear = draws.uniform(0.8, 2.0) * head
            capsules.append((x, y, head * 0.4, x + lean * ear, y - ear, head * draws.uniform(0.05, 0.4)))
    legs, tall, thick = draws.choice((2, 4, 4)), draws.uniform(0.2, 0.7), girth * draws.uniform(0.15, 0.45)
    for leg in range(legs):
        hip = back if leg % 2 else front
        start = (hip[0] * 0.9 + draws.uniform(-0.08, 0.08), hip[1] + girth * 0.3)
        half = (tall + girth) / 2
        capsules += _chain(draws, start, math.pi / 2 + draws.uniform(-0.4, 0.4), [half, half], [thick * 1.5, thick, thick * 0.7])
    if draws.chance(0.8):
        bones = [draws.uniform(0.1, 0.25)] * draws.integer(1, 4)
        radii = [girth * draws.uniform(0.1, 0.5) * (1 - 0.15 * bone) for bone in range(len(bones) + 1)]
        capsules += _chain(draws, back, math.pi + draws.uniform(-1.2, 0.9), bones, radii)
    return joined(capsules, draws.uniform(0.01, 0.05))


def crawler(draws: Draws) -> Shape:
    """A row of body parts with pairs of limbs, from above: insects, lizards, crabs."""
    parts = draws.integer(1, 4)
    sizes = [draws.uniform(0.1, 0.35) for _ in range(parts)]
    top, total = -0.7, sum(sizes)
    capsules: list[Capsule] = []
    for size in sizes:
        step = 1.4 * size / total
        capsules.append((0.0, top, size * 0.9, 0.0, top + step * 0.7, size * draws.uniform(0.6, 1.2)))
        top += step
    pairs, reach, thick = draws.integer(1, 6), draws.uniform(0.3, 1.0), draws.log_uniform(0.015, 0.12)
    spread, fan = draws.uniform(0.2, 1.0), draws.uniform(0, 1.2)
    for pair in range(pairs):
        place = (pair + 0.5) / pairs - 0.5
        start, angle = (0.05, place * spread), place * 2 * fan
        bones = [reach * 0.5, reach * draws.uniform(0.3, 0.7)]
        limb = _chain(draws, start, angle, bones, [thick * 1.5, thick, thick * draws.uniform(0.3, 2.0)])
        capsules += limb + [(-a, b, c, -d, e, f) for a, b, c, d, e, f in limb]
    return joined(capsules, draws.uniform(0.01, 0.04))


def swimmer(draws: Draws) -> Shape:
    """A curved body with fins or wings: fish, birds, snakes, worms."""
    bones = draws.integer(4, 8)
    thick, taper = draws.log_uniform(0.05, 0.35), draws.uniform(0.5, 2)
    radii = [thick * (math.sin(math.pi * (0.15 + 0.8 * bone / bones)) ** taper + 0.1) for bone in range(bones + 1)]
    capsules = _chain(draws, (-0.75, draws.uniform(-0.3, 0.3)), draws.uniform(-0.5, 0.5), [1.5 / bones] * bones, radii)
    x, y = capsules[-1][3:5]
    if draws.chance(0.7):  # a forked tail
        for lean in (-1, 1):
            fork = draws.uniform(0.15, 0.4)
            capsules.append((x, y, 0.05, x + fork, y + lean * fork * draws.uniform(0.3, 1.2), draws.uniform(0.01, 0.1)))
    for _ in range(draws.integer(0, 4)):  # fins, wings, legs
        bone = capsules[draws.integer(1, bones - 2)]
        wing = draws.uniform(0.2, 0.8)
        angle = draws.sign() * draws.uniform(0.4, 2.0)
        tip = (bone[0] + wing * math.cos(angle), bone[1] + wing * math.sin(angle))
        capsules.append((bone[0], bone[1], draws.uniform(0.03, 0.2), *tip, draws.uniform(0.01, 0.1)))
    return joined(capsules, draws.uniform(0.01, 0.05))


def plant(draws: Draws) -> Shape:
    """A stem that branches, at random with round ends: trees, flowers, mushrooms, corals."""
    capsules: list[Capsule] = []
    spread, shrink = draws.uniform(0.3, 0.9), draws.uniform(0.6, 0.85)
    tips = draws.choice((0.0, draws.uniform(0.05, 0.3)))
    branches = [((0.0, 0.95), -math.pi / 2, draws.uniform(0.4, 0.8), draws.log_uniform(0.02, 0.15))]
    for _ in range(draws.integer(2, 4)):
        grown = []
        for start, angle, length, thick in branches:
            end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
            capsules.append((*start, thick, *end, thick * 0.7))
            for turn in (-spread, spread):
                grown.append((end, angle + turn * draws.uniform(0.4, 1.4), length * shrink, thick * 0.7))
        branches = grown
    if tips:
        capsules += [(*start, tips, *start, tips) for start, _, _, _ in branches]
    return joined(capsules, draws.uniform(0.005, 0.03))


def figure(draws: Draws) -> Shape:
    """An upright body with a head, two arms and two legs, seen from the front."""
    head, hips, wide = draws.uniform(0.12, 0.24), draws.uniform(0.1, 0.45), draws.uniform(0.12, 0.28)
    shoulders = -0.9 + 2 * head + 0.08
    capsules: list[Capsule] = [
        (0.0, -0.9 + head, head, 0.0, -0.9 + 1.2 * head, head * draws.uniform(0.8, 1.1)),
        (0.0, shoulders - 0.05, head * 0.5, 0.0, shoulders + 0.1, head * 0.6),
        (0.0, shoulders + 0.1, wide, 0.0, hips, wide * draws.uniform(0.6, 1.6)),
    ]
    thick, alike = draws.uniform(0.04, 0.1), draws.chance(0.5)
    arm, leg = draws.uniform(0.2, 2.4), draws.uniform(0.05, 0.4)
    for side in (-1, 1):
        raised = arm if alike else draws.uniform(-0.2, 2.4)
        upper, lower = math.pi / 2 - side * raised, math.pi / 2 - side * leg
        capsules += _chain(draws, (side * wide * 0.9, shoulders + 0.1), upper, [0.3, 0.28], [thick * 1.2, thick, thick * 0.8])
        capsules += _chain(draws, (side * wide * 0.5, hips), lower, [0.4, 0.4], [thick * 1.6, thick * 1.2, thick])
    return joined(capsules, draws.uniform(0.01, 0.04))


def strands(draws: Draws) -> Shape:
    """Thin things over the whole image, parallel or crossed: grass, twigs, wires, bars."""
    count, spread = draws.integer(5, 36), draws.choice((0.05, 0.3, 1.5))
    angle, thick, length = (
        draws.choice((math.pi / 2, 0.0, draws.uniform(0, math.pi))),
        draws.log_uniform(0.01, 0.08),
        draws.uniform(0.5, 2.0),
    )
    capsules: list[Capsule] = []
    for _ in range(count):
        turn, half = angle + spread * draws.uniform(-1, 1), length * draws.uniform(0.3, 1)
        x, y, radius = draws.uniform(-1.2, 1.2), draws.uniform(-1.2, 1.2), thick * draws.uniform(0.5, 1.5)
        right, down = half * math.cos(turn), half * math.sin(turn)
        capsules.append((x - right, y - down, radius, x + right, y + down, radius * draws.uniform(0.2, 1)))
    return joined(capsules, 0.005)
