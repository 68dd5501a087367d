"""Procedural images: rendered from random numbers, without a model; results by themselves, or the start of an optimization.

`PROCEDURAL[name](index, seed, facts)` returns image `index`, (3, H, W), normalized as the teacher expects it, on the CPU.

`scenes.py` composes its images from parts: canvas (coordinates, noise, light), palettes, materials (colors of a surface),
shapes and creatures (signed distances), objects (a shape with a material, lit), backdrops, flames, and photo (the camera).
"""

from vitdfq.synthesis.procedural.dead_leaves import dead_leaves
from vitdfq.synthesis.procedural.noise import noise
from vitdfq.synthesis.procedural.scenes import scenes

PROCEDURAL = {
    "noise": noise,
    "dead_leaves": dead_leaves,
    "scenes": scenes,
}
