"""The schedule and the state of AdamWarmupCosine, and retries at a smaller learning rate."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from vitdfq.common.errors import NotFiniteError
from vitdfq.training.optimizer import AdamWarmupCosine, warmup_cosine
from vitdfq.training.trainable import TRIES, retry_with_smaller_lr


def test_rates_rise_and_fall_to_zero():
    rates = [warmup_cosine(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 20) and max(rates) > 0.85 and rates[100] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(rates[20:]))


def test_training_continues_from_a_saved_state():
    def make():
        layer = nn.Linear(3, 3)
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer, AdamWarmupCosine([{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.2}], 9)

    def train(layer, optimizer, until):
        while optimizer.done < until:
            layer(torch.arange(3.0) + optimizer.done).square().sum().backward()
            optimizer.step()

    uninterrupted, optimizer = make()
    train(uninterrupted, optimizer, 9)
    interrupted, first = make()
    train(interrupted, first, 5)
    resumed, second = make()
    resumed.load_state_dict(interrupted.state_dict())
    second.restore(first.state())
    train(resumed, second, 9)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))


def test_a_new_optimizer_clears_old_gradients():
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), float("nan"))
    AdamWarmupCosine([{"params": [layer.weight], "lr": 0.1}], 3)
    assert layer.weight.grad is None


@pytest.mark.parametrize("failures", range(TRIES + 1))
def test_training_that_fails_is_tried_again_at_half_the_rate(failures):
    factors, undone = [], []

    def train(lr_factor):
        factors.append(lr_factor)
        if len(factors) <= failures:
            raise NotFiniteError("the loss is nan")

    if failures == TRIES:
        with pytest.raises(NotFiniteError):
            retry_with_smaller_lr(train, lambda: undone.append(1))
    else:
        retry_with_smaller_lr(train, lambda: undone.append(1))
    assert factors == [0.5**attempt for attempt in range(min(failures + 1, TRIES))] and len(undone) == failures
