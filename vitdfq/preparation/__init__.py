"""Float to float: the same function, easier to quantize."""

from vitdfq.preparation.prepare import prepare
from vitdfq.preparation.transforms import TRANSFORMS

__all__ = ["TRANSFORMS", "prepare"]
