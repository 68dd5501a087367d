"""Fit every quantizer: weights on themselves, activations on what reaches them from the part quantized so far."""

import torch
from torch import Tensor, nn

from vitdfq.quantization.modules import activation_quantizers, weighted_modules


@torch.no_grad()
def observe(student: nn.Module, teacher: nn.Module, images: Tensor, *, num_images: int = 64) -> None:
    """Set all scales by error-minimising clip search, in one forward pass.

    Every activation quantizer is fitted on its input the moment it arrives and quantizes it at once, so that each site sees
    the errors of all sites before it ("sequential" calibration).

    Args:
        student: changed in place.
        teacher: not used; ranges need no targets.
        images: (N, 3, H, W).
        num_images: at most so many of the images are used; ranges need few.
    """
    for module in weighted_modules(student):
        if not isinstance(module.weight_quantizer, nn.Identity):
            module.weight_quantizer.fit(module.weight.flatten(1))
    hooks = [
        quantizer.register_forward_pre_hook(lambda quantizer, inputs: quantizer.fit(inputs[0]))
        for quantizer in activation_quantizers(student)
    ]
    try:
        student(images[:num_images])
    finally:
        for hook in hooks:
            hook.remove()
