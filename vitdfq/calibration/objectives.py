"""What block reconstruction minimizes: `OBJECTIVES[name](teacher, images)` -> `Objective`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import units
from vitdfq.runtime.run import Run
from vitdfq.training.output_distance import finish
from vitdfq.training.trainable import divergence

PROBES = 2
AT_ONCE = 32  # images that pass through the whole teacher and back at once


class Summand(NamedTuple):
    """One summand of a loss, of some images of a batch: the loss of the whole batch is the sum of `value` / sum of `size`."""

    value: Tensor  # 0-d
    size: Tensor | None  # 0-d, what the value is relative to; None: it is not relative
    is_mean: bool  # value and size are means over the images, and weigh by their number; otherwise they are sums


Loss = Callable[[Tensor, Tensor], list[Summand]]
"""(the unit's output, the float unit's output), both (B, ...) -> the summands of the loss."""

Objective = Callable[[int], Loss]
"""Position of a unit in the chain -> its loss. The last unit writes logits: its loss is always their divergence."""


def total_loss(summands: list[Summand], num_images: int, run: Run) -> Tensor:
    """This process's share of a batch's loss, 0-d; the shares of the processes add up to the loss.

    Args:
        summands: of the images that this process has of the batch.
        num_images: how many they are.
        run: knows the other processes.
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
    """Squared error of the unit's output, relative to the output's size; `images` (N, 3, H, W) are not used."""
    return _last_by_divergence(teacher, lambda position: _relative_error)


def fisher(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error weighted by how much each position of the output matters to the class probabilities.

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
    """Error of the pooled features after the rest of the float network has run on the unit's output, plus the unit's own.

    The global feature loss of GLF-Q (its arXiv id is not known to us): it judges an error by what is left of it at the end. It
    costs a pass through the rest of the network. `images` (N, 3, H, W) are not used.
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
                pooled = finish(teacher, y).pooled
            return _relative_error(finish(teacher, x).pooled, pooled) + _relative_error(output, target)

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
    for part in images.split(AT_ONCE):
        with torch.enable_grad():
            x, outputs = part.to(device_of(teacher)), []
            for unit in chain[:-1]:
                x = unit.forward(x)
                if not outputs:
                    x = x.detach().requires_grad_()  # nothing before it learns
                outputs.append(x)
            logits = chain[-1].forward(x)
            root = logits.detach().softmax(-1).sqrt()
            for probe in range(PROBES):
                v = torch.randn(root.shape, generator=rng).to(root)
                u = root * v - root.square() * (root * v).sum(-1, keepdim=True)
                gradients = torch.autograd.grad((u * logits).sum(), outputs, retain_graph=probe + 1 < PROBES)
                squares = [gradient.square().sum(0, keepdim=True) for gradient in gradients]
                totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
    return [total / total.mean().clamp(min=torch.finfo(total.dtype).tiny) for total in totals]
