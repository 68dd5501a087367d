"""Learning rate and jitter during a run."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.models import attention_sites
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.schedule import Schedule, default_lr


def test_two_rounds_of_warmup_and_cosine():
    factors = [Schedule().lr_factor(step, 1000) for step in range(1000)]
    assert factors[:500] == factors[500:]
    assert factors[0] == 0.01 and factors[49] == 0.5 and factors[99] == factors[100] == 1
    assert factors[300] == pytest.approx(0.5)
    assert 0 < factors[499] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule(rolls=(15,), warmup=0.1), Schedule(rolls=(0, 6, 13, 20, 26))])
def test_lr_lambda_gives_lambda_lr_the_same_rates_bit_for_bit(schedule, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.lr_lambda(steps))
    for step in range(steps):
        assert optimizer.param_groups[0]["lr"] == 0.3 * schedule.lr_factor(step, steps)
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 11])
def test_every_step_of_a_short_run_has_a_positive_rate(steps):
    assert all(0 < Schedule().lr_factor(step, steps) <= 1 for step in range(steps))


def test_roll_limit_scales_with_the_side():
    limits = [Schedule().roll_limit(step, 1000, 224) for step in (0, 499, 500, 999)]
    assert limits == [15, 15, 30, 30]
    assert [Schedule().roll_limit(step, 10, 28) for step in (0, 9)] == [2, 4]
    assert Schedule().roll_limit(0, 10, 5) == 1


def test_default_lr_depends_on_a_class_token():
    assert default_lr(attention_sites(make_tiny("vit"))) == 0.20
    assert default_lr(attention_sites(make_tiny("swin"))) == 0.25


def test_jitter_depends_on_seed_and_step_and_covers_its_range():
    draws = [Jitter.draw(0, step, 2) for step in range(200)]
    assert draws == [Jitter.draw(0, step, 2) for step in range(200)]
    assert draws != [Jitter.draw(1, step, 2) for step in range(200)]
    assert {jitter.offset for jitter in draws} == {-2, -1, 0, 1, 2}
    assert 60 < sum(jitter.flip for jitter in draws) < 140


def test_jitter_shifts_both_axes_then_flips():
    image = torch.zeros(1, 3, 5, 6)
    image[:, :, 0, 0] = 1
    assert Jitter(2, flip=False)(image)[0, 0].nonzero().tolist() == [[2, 2]]
    assert Jitter(-1, flip=False)(image)[0, 0].nonzero().tolist() == [[4, 5]]
    assert Jitter(2, flip=True)(image)[0, 0].nonzero().tolist() == [[2, 3]]
