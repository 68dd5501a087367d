"""The recipe section `compare`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The section `compare`: what `vitdfq compare` puts into one table.

    methods: synthesis methods, a row each; None: the recipe's own and its baselines. The recipe's own method is used with all
        its options, another one with the same number of images and, if it takes steps, of steps.
    seeds: every row is made once for each, for synthesis and calibration alike; None: the recipe's.
    real_images: so many real images, never evaluated and without labels, as one more row; 0: none.
    """

    methods: list[str] | None = None
    seeds: list[int] | None = None
    real_images: int = 0
