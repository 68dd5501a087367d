"""to_integer: a student whose products are of integers.

codes.py, tables.py   what a quantizer rounds to, as planes of int8 values
weights.py            a layer's weight as int8, with what corrects for zero points
backends.py           who multiplies int8 matrices on a device: found out by trying
products.py           products of attention: many small ones at once
layers.py             the modules that stand where a student has QuantLinear, QuantConv2d, QuantMatMul
convert.py            to_integer, integer_report
"""

from vitdfq.quantization.integer.convert import integer_report, to_integer

__all__ = ["integer_report", "to_integer"]
