"""to_integer: a student whose products are of integers.

codes.py, tables.py   activations as planes of int8 values, as their quantizer rounds them
weights.py            a layer's weight as int8, with the corrections for zero points
backends.py           kernels that multiply int8 matrices: which of them are exact and fast on this machine
products.py           the products of attention: many small matrices at once
layers.py             the integer student, and its modules in place of QuantLinear, QuantConv2d and QuantMatMul
fused/                whole blocks of a ViT by compiled kernels
convert.py            to_integer, integer_report
"""

from vitdfq.quantization.integer.convert import integer_report, to_integer

__all__ = ["integer_report", "to_integer"]
