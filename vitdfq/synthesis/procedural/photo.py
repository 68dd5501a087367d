"""The camera: what happens to light on its way to a photograph."""

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Canvas, blurred

GRAY = (0.3, 0.59, 0.11)


def photograph(canvas: Canvas, image: Tensor) -> Tensor:
    """Return the image (3, H, W) as a camera gives it: exposure, white balance, contrast, vignette, blur, noise; in [0, 1]."""
    draws = canvas.draws
    side = min(canvas.height, canvas.width)
    image = image.clamp(0, 1.5)
    along = canvas.grid[0] * draws.uniform(-0.2, 0.2) + canvas.grid[1] * draws.uniform(-0.3, 0.2)
    image = image * (1 + along)
    if draws.chance(0.3):
        x, y = canvas.grid
        image = image * (1 - draws.uniform(0, 0.25) * (x * x + y * y))
    image = image * (1 + 0.12 * draws.normal(3, 1, 1)).clamp(0.7, 1.3)
    image = blurred(image, side * draws.uniform(0.0, 0.012))
    gray = (image * torch.tensor(GRAY)[:, None, None]).sum(0)
    image = gray + (image - gray) * (0.0 if draws.chance(0.04) else draws.uniform(0.4, 1.15))
    low, high = torch.quantile(gray, torch.tensor([0.02, 0.98])).tolist()
    wanted_low, wanted_high = draws.uniform(0, 0.2), draws.uniform(0.7, 1.05)
    gain = min((wanted_high - wanted_low) / max(high - low, 1e-3), 2.5)
    center = (wanted_low + wanted_high) / 2
    image = (image - (low + high) / 2) * gain + center
    image = image.clamp(0, 1) ** draws.log_uniform(0.7, 1.5)
    return (image + draws.uniform(0, 0.02) * draws.normal(3, canvas.height, canvas.width)).clamp(0, 1)
