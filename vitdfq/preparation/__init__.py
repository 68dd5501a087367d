"""Float to float: the same function, easier to quantize."""

from vitdfq.preparation.prepare import TRANSFORMS, prepare

__all__ = ["TRANSFORMS", "prepare"]
