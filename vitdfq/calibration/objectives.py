"""The objectives of block reconstruction: `OBJECTIVES[name](teacher, images)` -> `Objective`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import gives, units
from vitdfq.runtime.run import Run
from vitdfq.training.output_distance import outputs_of_last_block
from vitdfq.training.trainable import divergence

NUM_PROBES = 2  # random probes for each image
BATCH_SIZE = 32  # images in one forward and backward pass of the whole teacher


class Summand(NamedTuple):
    """A summand of a loss on a part of a batch; on the whole batch it is sum(value) / sum(size), over the parts."""

    value: Tensor  # 0-d
    size: Tensor | None  # 0-d; None: an absolute error, which is not divided
    is_mean: bool  # True: value and size are means over the part's images, to be weighted by their number. False: sums


Loss = Callable[[Tensor, Tensor], list[Summand]]
"""(the unit's output, the float unit's output), both (B, ...) -> the summands of the loss."""

Objective = Callable[[int], Loss]
"""Position of a unit in the chain -> its loss.

The last unit writes the model's output: its loss is always the divergence of logits, or the relative error of features.
"""


def total_loss(summands: list[Summand], num_images: int, run: Run) -> Tensor:
    """This process's share of a batch's loss, 0-d; the shares of all processes add up to the loss.

    Args:
        summands: of this process's images of the batch.
        num_images: number of these images.
        run: sums over the processes.
    """
    share: Tensor | None = None
    total: Tensor | None = None
    for value, size, is_mean in summands:
        if is_mean:
            if share is None:
                share = num_images / run.total(value.new_tensor(float(num_images)))
            value, size = value * share, None if size is None else size * share
        if size is not None:
            value = value / run.total(size.clone()).float().clamp(min=torch.finfo(torch.float32).tiny)
        total = value if total is None else total + value
    assert total is not None
    return total


def mse(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error of the unit's output, relative to its energy; `images` (N, 3, H, W) are not used."""
    return _last_by_output(teacher, lambda position: _relative_error)


def fisher(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error, weighted by the sensitivity of the model's output to each position of the unit's output.

    The weights are the diagonal of the Fisher information of the softmax (as in BRECQ, arXiv 2102.05426), estimated with random
    probes: u = sqrt(p) v - p (sqrt(p) . v) with v ~ N(0, I) has E[u u^T] = diag(p) - p p^T, and the square of the gradient of
    u . logits is averaged over images (N, 3, H, W). No label is needed. Features are taken as the mean of a normal distribution
    with unit variance, whose Fisher information is I: u = v.
    """
    weights = _fisher_weights(teacher, images)

    def weighted(position: int) -> Loss:
        def loss(output: Tensor, target: Tensor) -> list[Summand]:
            error = ((output - target).square() * weights[position]).mean()
            return [Summand(error, target.square().mean(), is_mean=True)]

        return loss

    return _last_by_output(teacher, weighted)


def through_rest(teacher: nn.Module, images: Tensor) -> Objective:
    """Error of the pooled features that the rest of the float network computes from the unit's output, plus the output's error.

    The global feature loss of GLF-Q (its arXiv id is not known to us): it measures the effect of an error at the end of the
    network. Each step costs a pass through the rest of the network. `images` (N, 3, H, W) are not used.
    """
    chain = units(teacher)

    def through(position: int) -> Loss:
        def loss(output: Tensor, target: Tensor) -> list[Summand]:
            x, y = output, target
            for unit in chain[position + 1 : -1]:
                x = unit.forward(x)
                with torch.no_grad():
                    y = unit.forward(y)
            with torch.no_grad():
                pooled = outputs_of_last_block(teacher, y).pooled
            return _relative_error(outputs_of_last_block(teacher, x).pooled, pooled) + _relative_error(output, target)

        return loss

    return _last_by_output(teacher, through)


OBJECTIVES = {"mse": mse, "fisher": fisher, "through_rest": through_rest}


def _last_by_output(teacher: nn.Module, objective: Objective) -> Objective:
    last = len(units(teacher)) - 1
    of_output = _divergence if gives(teacher) == "classes" else _relative_error
    return lambda position: of_output if position == last else objective(position)


def _relative_error(output: Tensor, target: Tensor) -> list[Summand]:
    """|output - target|^2 / |target|^2, in float32 also under autocast."""
    output, target = output.float(), target.float()
    return [Summand((output - target).square().sum(), target.square().sum(), is_mean=False)]


def _divergence(logits: Tensor, target: Tensor) -> list[Summand]:
    return [Summand(divergence(logits, target), None, is_mean=True)]


def softmax_probe(v: Tensor, logits: Tensor) -> Tensor:
    """Return u (B, C) with E[u u^T] = diag(p) - p p^T of the softmax p of logits (B, C), for v ~ N(0, I)."""
    root = logits.softmax(-1).sqrt()
    return root * v - root.square() * (root * v).sum(-1, keepdim=True)


def _fisher_weights(teacher: nn.Module, images: Tensor) -> list[Tensor]:
    """One (1, ...) weight of mean 1 for each unit's output but the last."""
    rng = torch.Generator().manual_seed(0)
    chain, has_classes = units(teacher), gives(teacher) == "classes"
    totals: list[Tensor] = []
    for batch in images.split(BATCH_SIZE):
        with torch.enable_grad():
            x, outputs = batch.to(device_of(teacher)), []
            for unit in chain[:-1]:
                x = unit.forward(x)
                if not outputs:
                    x = x.detach().requires_grad_()  # gradients start at the first unit's output
                outputs.append(x)
            result = chain[-1].forward(x)
            for probe in range(NUM_PROBES):
                v = torch.randn(result.shape, generator=rng).to(result)
                u = softmax_probe(v, result.detach()) if has_classes else v
                gradients = torch.autograd.grad((u * result).sum(), outputs, retain_graph=probe + 1 < NUM_PROBES)
                squares = [gradient.square().sum(0, keepdim=True) for gradient in gradients]
                totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
    return [total / total.mean().clamp(min=torch.finfo(total.dtype).tiny) for total in totals]
