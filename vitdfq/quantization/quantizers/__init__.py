"""Quantizers by name, built as `QUANTIZERS[name](bits, shape=..., **options)`; `base.py` has the contract."""

from collections.abc import Callable
from functools import partial

from vitdfq.quantization.quantizers.adalog import AdaLog
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.shifted_log import ShiftedLog2
from vitdfq.quantization.quantizers.twin import TwinGelu, TwinSoftmax
from vitdfq.quantization.quantizers.uniform import Uniform

QUANTIZERS: dict[str, Callable[..., Quantizer]] = {
    "uniform": Uniform,
    "log2": partial(Logarithmic, steps_per_octave=1),
    "log_sqrt2": partial(Logarithmic, steps_per_octave=2),
    "adalog": AdaLog,
    "shifted_log2": ShiftedLog2,
    "twin_softmax": TwinSoftmax,
    "twin_gelu": TwinGelu,
}


def quantizer_class(name: str) -> type[Quantizer]:
    """The class behind a name: its properties decide where the quantizer may stand."""
    entry = QUANTIZERS[name]
    found = entry.func if isinstance(entry, partial) else entry
    assert isinstance(found, type)
    return found
