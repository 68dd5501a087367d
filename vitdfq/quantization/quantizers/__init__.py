"""Quantizers by name. Each is built as `QUANTIZERS[name](bits, shape=..., **options)`; see `uniform.py` for the contract."""

from functools import partial

from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.uniform import Uniform

QUANTIZERS = {
    "uniform": Uniform,
    "log2": partial(Logarithmic, steps_per_octave=1),
    "log_sqrt2": partial(Logarithmic, steps_per_octave=2),
}
