"""Quantizers, the modules that hold them, and `quantize`, which puts them into a copy of a model."""

from vitdfq.quantization.convert import quantize, sites
from vitdfq.quantization.policy import POLICIES
from vitdfq.quantization.quantizers import QUANTIZERS

__all__ = ["POLICIES", "QUANTIZERS", "quantize", "sites"]
