"""Exported quantizers of activations round as the quantizers themselves."""

import pytest
import torch

from vitdfq.onnx.activations import TwinSteps, exportable
from vitdfq.quantization import QUANTIZERS


@pytest.mark.parametrize("bits", [3, 5, 6, 8])
@pytest.mark.parametrize("octaves", [1, 3, 9])
def test_a_twin_softmax_is_its_two_roundings(bits, octaves):
    rng = torch.Generator().manual_seed(bits + octaves)
    small = torch.rand(20_000, generator=rng) * torch.exp2(-octaves * torch.rand(20_000, generator=rng))
    values = torch.cat([small, torch.tensor([-0.1, 0.0, 1.0, 1.5])])
    quantizer = QUANTIZERS["twin_softmax"](bits)
    quantizer.fit(small)
    exported = exportable(quantizer)
    assert isinstance(exported, TwinSteps)
    torch.testing.assert_close(exported(values), quantizer(values), rtol=1e-6, atol=1e-6)
