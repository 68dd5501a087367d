"""The objectives of block reconstruction: `OBJECTIVES[name](teacher, images)` -> `Objective`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import units
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
"""Position of a unit in the chain -> its loss. The last unit writes logits: its loss is always their divergence."""


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
    return _last_by_divergence(teacher, lambda position: _relative_error)


def fisher(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error, weighted by the sensitivity of the class probabilities to each position of the output.

    The weights are the diagonal of the Fisher information of the softmax (as in BRECQ, arXiv 2102.05426), estimated with random
    probes: u = sqrt(p) v - p (sqrt(p) . v) with v ~ N(0, I) has E[u u^T] = diag(p) - p p^T, and the square of the gradient of
    u . logits is averaged over images (N, 3, H, W). No label is needed.
    """
    weights = _fisher_weights(teacher, images)

    def weighted(position: int) -> Loss:
        def loss(output: Tensor, target: Tensor) -> list[Summand]:
            error = ((output - target).square() * weights[position]).mean()
            return [Summand(error, target.square().mean(), is_mean=True)]

        return loss

    return _last_by_divergence(teacher, weighted)


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

    return _last_by_divergence(teacher, through)


OBJECTIVES = {"mse": mse, "fisher": fisher, "through_rest": through_rest}


def _last_by_divergence(teacher: nn.Module, objective: Objective) -> Objective:
    last = len(units(teacher)) - 1
    return lambda position: _divergence if position == last else objective(position)


def _relative_error(output: Tensor, target: Tensor) -> list[Summand]:
    """|output - target|^2 / |target|^2, in float32 also under autocast."""
    output, target = output.float(), target.float()
    return [Summand((output - target).square().sum(), target.square().sum(), is_mean=False)]


def _divergence(logits: Tensor, target: Tensor) -> list[Summand]:
    return [Summand(divergence(logits, target), None, is_mean=True)]


def _fisher_weights(teacher: nn.Module, images: Tensor) -> list[Tensor]:
    """One (1, ...) weight of mean 1 for each unit's output but the last."""
    rng = torch.Generator().manual_seed(0)
    chain = units(teacher)
    totals: list[Tensor] = []
    for batch in images.split(BATCH_SIZE):
        with torch.enable_grad():
            x, outputs = batch.to(device_of(teacher)), []
            for unit in chain[:-1]:
                x = unit.forward(x)
                if not outputs:
                    x = x.detach().requires_grad_()  # gradients start at the first unit's output
                outputs.append(x)
            logits = chain[-1].forward(x)
            root = logits.detach().softmax(-1).sqrt()
            for probe in range(NUM_PROBES):
                v = torch.randn(root.shape, generator=rng).to(root)
                u = root * v - root.square() * (root * v).sum(-1, keepdim=True)
                gradients = torch.autograd.grad((u * logits).sum(), outputs, retain_graph=probe + 1 < NUM_PROBES)
                squares = [gradient.square().sum(0, keepdim=True) for gradient in gradients]
                totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
    return [total / total.mean().clamp(min=torch.finfo(total.dtype).tiny) for total in totals]
