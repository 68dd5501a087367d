"""Quantizers by name. Each is built as `QUANTIZERS[name](bits, shape=..., **options)`; see `uniform.py` for the contract."""

from functools import partial

from vitdfq.quantization.quantizers.adalog import AdaLog
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.shifted_log import ShiftedLog2
from vitdfq.quantization.quantizers.twin import TwinGelu, TwinSoftmax
from vitdfq.quantization.quantizers.uniform import Uniform

QUANTIZERS = {
    "uniform": Uniform,
    "log2": partial(Logarithmic, steps_per_octave=1),
    "log_sqrt2": partial(Logarithmic, steps_per_octave=2),
    "adalog": AdaLog,
    "shifted_log2": ShiftedLog2,
    "twin_softmax": TwinSoftmax,
    "twin_gelu": TwinGelu,
}
