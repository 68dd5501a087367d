"""Noise of a colored spectrum."""

import torch

from vitdfq.synthesis.procedural.noise import colored_noise
from vitdfq.synthesis.seeds import generator


def test_colored_noise_has_less_power_at_high_frequencies():
    field = colored_noise(generator(0, "test"), 64, 64, 1.5)
    power = torch.fft.rfft2(field).abs().square().mean(0)
    assert power[1:4, 1:4].mean() > 100 * power[20:30, 20:30].mean()
    torch.testing.assert_close(field.std(), torch.tensor(1.0), rtol=1e-3, atol=1e-3)
