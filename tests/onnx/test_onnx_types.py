"""Which 8-bit types meet in a product: uint8 on the right where int8 would overflow on a processor of the file's users."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny
from torch import nn

import vitdfq
from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization.modules import QuantLinear
from vitdfq.quantization.quantizers.uniform import Uniform

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from vitdfq.onnx import layout, runtime, trace  # noqa: E402
from vitdfq.onnx.layout import Layout  # noqa: E402
from vitdfq.onnx.modules import Linear, exportable_copy  # noqa: E402

MOST_IN_16_BITS = 2**15 - 1


@given(left=st.integers(2, 8), right=st.integers(2, 8))
def test_two_products_fit_16_bits_wherever_int8_is_kept(left, right):
    most = 2 * (2**left - 1) * 2 ** (right - 1)
    assert layout.fits_int8(Uniform(left), Uniform(right)) == (most <= MOST_IN_16_BITS)


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_extremes_are_multiplied_exactly(bits, monkeypatch):
    """Rows of the largest codes: what saturates is off by a factor, on processors whose products saturate."""
    monkeypatch.setattr(trace, "image_size", lambda model: (4, 64))
    linear = nn.Linear(64, 8)
    with torch.no_grad():
        linear.weight.copy_(torch.where(torch.arange(8)[:, None] < 4, 1.0, -1.0) * torch.linspace(0.99, 1, 64))
    images = torch.ones(2, 3, 4, 64)
    quantized = QuantLinear(linear, QUANTIZERS["uniform"](8, shape=(8, 1)), QUANTIZERS["uniform"](bits))
    quantized.weight_quantizer.fit(linear.weight.detach())
    quantized.input_quantizer.fit(images)
    exported = Linear(quantized, Layout(cpu="avx2"))
    exported.register_parameter("device", nn.Parameter(torch.zeros(1)))
    found = runtime.outputs(trace.traced(exported).SerializeToString(), images)[0]
    torch.testing.assert_close(found, quantized(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("bits", "cpu", "weight", "head"),
    [
        ("w8a8", "avx2", torch.uint8, torch.uint8),
        ("w6a6", "avx2", torch.int8, torch.uint8),
        ("w8a8", "vnni", torch.int8, torch.int8),
    ],
)
def test_types_of_a_student(bits, cpu, weight, head):
    teacher = vitdfq.prepare(make_tiny("vit"))
    student = vitdfq.calibrate(vitdfq.quantize(teacher, bits=bits), teacher, torch.randn(2, 3, 32, 32), steps=["observe"])
    buffers = dict(exportable_copy(student, Layout(cpu=cpu)).named_buffers())
    assert buffers["blocks.0.mlp.fc1.weight.codes"].dtype == weight
    assert buffers["blocks.0.attn.qk.right.zero_point"].dtype == weight
    assert buffers["blocks.0.attn.qk.left.zero_point"].dtype == torch.uint8
    assert buffers["head.weight.codes"].dtype == head  # first and last layer keep 8 bits
