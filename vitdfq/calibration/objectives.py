"""What block reconstruction minimises: `OBJECTIVES[name](teacher, inputs)` -> `Objective`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import units
from vitdfq.training.output_distance import finish, relative_error
from vitdfq.training.trainable import divergence

Summed = Callable[[Tensor], Tensor]
"""A number of this part of a batch -> the sum over all parts of it (see `BatchSharding`); the number itself where there is one part."""

Loss = Callable[[Tensor, Tensor, Summed], Tensor]
"""(the unit's output, the float unit's output, both (B, ...) of one part of a batch; sums over the parts) -> 0-d.

The losses of the parts add up to that of the batch.
"""

Objective = Callable[[int], Loss]
"""Position of a unit in the chain -> its loss. The last unit writes logits: its loss is always their divergence."""

PROBES = 2
AT_ONCE = 32  # images that go through the whole teacher and back


def mse(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error of the unit's output, relative to the output's size; images (N, 3, H, W) are not looked at."""
    return _last_by_divergence(teacher, lambda position: _relative_error)


def fisher(teacher: nn.Module, images: Tensor) -> Objective:
    """Squared error weighted by how much each position of the output matters to the class probabilities.

    The weights are the diagonal of the Fisher information of the softmax, estimated with random probes: u = sqrt(p) v -
    p (sqrt(p) . v) with v ~ N(0, I) has E[u u^T] = diag(p) - p p^T, and the square of the gradient of u . logits is averaged over
    images. Needs no labels, but images (N, 3, H, W).
    """
    weights = _fisher_weights(teacher, images)

    def weighted(position: int) -> Loss:
        def loss(output: Tensor, target: Tensor, summed: Summed) -> Tensor:
            part = _part(target, summed)
            error = ((output - target).square() * weights[position]).mean()
            return error * part / summed(target.square().mean() * part)

        return loss

    return _last_by_divergence(teacher, weighted)


def through_rest(teacher: nn.Module, images: Tensor) -> Objective:
    """Error of the pooled features after the rest of the float network has run on the unit's output, plus the unit's own.

    The global feature loss of GLF-Q (its arXiv id is not known to us): what survives images of the wrong kind.
    Costs a pass through the rest of the network. Images (N, 3, H, W) are not looked at.
    """
    rest = units(teacher)

    def through(position: int) -> Loss:
        def loss(output: Tensor, target: Tensor, summed: Summed) -> Tensor:
            x, y = output, target
            for unit in rest[position + 1 : -1]:
                x = unit.forward(x)
                with torch.no_grad():
                    y = unit.forward(y)
            with torch.no_grad():
                wanted = finish(teacher, y).pooled
            return _relative_error(finish(teacher, x).pooled, wanted, summed) + _relative_error(output, target, summed)

        return loss

    return _last_by_divergence(teacher, through)


OBJECTIVES = {"mse": mse, "fisher": fisher, "through_rest": through_rest}


def _last_by_divergence(teacher: nn.Module, objective: Objective) -> Objective:
    last = len(units(teacher)) - 1
    return lambda position: _divergence if position == last else objective(position)


def _relative_error(output: Tensor, target: Tensor, summed: Summed) -> Tensor:
    return relative_error(output, target, summed(target.float().square().sum()))


def _divergence(logits: Tensor, target: Tensor, summed: Summed) -> Tensor:
    return divergence(logits, target) * _part(target, summed)


def _part(target: Tensor, summed: Summed) -> Tensor:
    """The share of the batch's images that this part has, 0-d."""
    return len(target) / summed(target.new_tensor(float(len(target))))


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
