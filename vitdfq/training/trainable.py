"""The trainable parameters of a student, retries at a smaller learning rate, and the KL divergence."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.common.errors import NotFiniteError
from vitdfq.quantization.modules import QuantWeighted, activation_quantizers, take_weight_off_grid, weighted_modules

logger = logging.getLogger(__name__)

TRIES = 4  # attempts at a training, or at an image, each at half the learning rate of the previous one


class TrainableParameters:
    """Weights, biases and factors of activation scales: groups for an optimizer, snapshots and their restoration."""

    def __init__(self, modules: list[QuantWeighted], quantizers: list[Any]) -> None:
        self.modules, self.quantizers = modules, quantizers  # quantizers that name what they have to train
        self.weights = [parameter for module in modules for parameter in (module.weight, module.bias) if parameter is not None]

    def groups(self, lr: float, scale_lr: float) -> list[dict[str, Any]]:
        """Parameter groups whose learning rates follow the quantization steps.

        A step of Adam changes a value by about the learning rate, whatever the size of the gradient, while quantization steps
        differ by a factor of 40 between layers of one network.

        Args:
            lr: in quantization steps of each weight; times the square root of a row's length for its bias.
            scale_lr: as a share of the smallest value that each quantizer trains, its scale or clip; 0: they are not trained.
        """
        groups: list[dict[str, Any]] = []
        for module in self.modules:
            grid = module.weight_quantizer.affine
            step = module.weight.std().item() if grid is None else grid.scale.mean().item()
            groups.append({"params": [module.weight], "lr": lr * step})
            if module.bias is not None:
                groups.append({"params": [module.bias], "lr": lr * step * math.sqrt(module.weight[0].numel())})
        scales = [{"params": [scale], "lr": scale_lr * scale.amin().item()} for scale in self._scales()]
        return groups + (scales if scale_lr else [])

    def snapshot(self) -> list[Tensor]:
        """Copies of the weights, biases and scales."""
        return [value.detach().clone() for value in self._values()]

    def require_finite(self, what: str) -> None:
        """Raise NotFiniteError if a weight, bias or scale is NaN or infinite; the loss may still have been finite."""
        if not all(value.isfinite().all() for value in self._values()):
            raise NotFiniteError(f"{what}: weights are no longer finite; try a smaller lr")

    @torch.no_grad()
    def restore(self, snapshot: list[Tensor]) -> None:
        """Copy a snapshot back."""
        for value, earlier in zip(self._values(), snapshot, strict=True):
            value.copy_(earlier)

    def _values(self) -> list[Tensor]:
        return [*self.weights, *self._scales()]

    def _scales(self) -> list[Tensor]:
        return [getattr(quantizer, quantizer.trained) for quantizer in self.quantizers]


@contextmanager
def trainable(owners: Sequence[nn.Module]) -> Iterator[TrainableParameters]:
    """Let weights, biases and the activation scales of `owners`, or their factors, receive gradients inside the block.

    Every forward pass rounds the weights, also of a student that was calibrated before. This lasts beyond the block, until
    `put_weight_on_grid`.
    """
    modules = [module for owner in owners for module in weighted_modules(owner)]
    quantizers: list[Any] = [quantizer for owner in owners for quantizer in activation_quantizers(owner) if quantizer.trained]
    parameters = TrainableParameters(modules, quantizers)
    for module in modules:
        take_weight_off_grid(module)
    for parameter in parameters.weights:
        parameter.requires_grad_(True)
    for quantizer in quantizers:  # a buffer becomes a parameter inside the block, with the same name in the state_dict
        scale = getattr(quantizer, quantizer.trained)
        delattr(quantizer, quantizer.trained)
        setattr(quantizer, quantizer.trained, nn.Parameter(scale))
    try:
        yield parameters
    finally:
        for parameter in parameters.weights:
            parameter.requires_grad_(False)
            parameter.grad = None
        for quantizer in quantizers:
            scale = getattr(quantizer, quantizer.trained).detach()
            delattr(quantizer, quantizer.trained)
            quantizer.register_buffer(quantizer.trained, scale)


def finite(loss: Tensor, what: str, step: int) -> float:
    """Return a 0-d loss as a number, which waits for the device.

    Raises:
        NotFiniteError: the loss is NaN or infinite; the message starts with `what` and names the step.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise NotFiniteError(f"{what} is {value} at step {step}; try a smaller lr")
    return value


def retry_with_smaller_lr(train: Callable[[float], None], undo: Callable[[], None]) -> None:
    """Call `train(lr_factor)` with factor 1, and after a NotFiniteError with half the factor, at most TRIES times in all.

    `undo()` is called after every failed attempt.

    Raises:
        NotFiniteError: of the last attempt.
    """
    for attempt in range(TRIES):
        try:
            return train(0.5**attempt)
        except NotFiniteError as error:
            undo()
            if attempt + 1 == TRIES:
                raise
            logger.info(f"{error}; again at {0.5 ** (attempt + 1):g} of the rate")


def divergence(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence from the teacher's to the student's class probabilities, 0-d, mean over the batch.

    Args:
        logits: the student's, (B, C).
        target: the teacher's logits, (B, C).
        temperature: divides all logits. The result is multiplied by its square, so that gradients keep their size.
    """
    logits, target = (x.float().div(temperature).log_softmax(-1) for x in (logits, target))
    return F.kl_div(logits, target, log_target=True, reduction="batchmean") * temperature**2
