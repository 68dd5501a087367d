"""The integer program, against all choices one by one."""

import itertools
import sys

import pytest
import torch

from vitdfq.analysis.allocation import allocate
from vitdfq.common.errors import RecipeError


def tables(seed: int, layers: int, choices=(2, 3, 4, 8)) -> tuple[dict, dict]:
    """Random errors that fall with bits, and sizes that grow with them."""
    rng = torch.Generator().manual_seed(seed)
    errors, costs = {}, {}
    for index in range(layers):
        scale, size = torch.rand(2, generator=rng).tolist()
        errors[f"layer{index}"] = {bits: scale * 4.0**-bits for bits in choices}
        costs[f"layer{index}"] = {bits: (1 + 9 * size) * bits for bits in choices}
    return errors, costs


def total(table: dict, bits_of: dict) -> float:
    return sum(table[layer][bits] for layer, bits in bits_of.items())


@pytest.mark.parametrize("seed", range(6))
def test_no_choice_within_the_budget_is_better(seed):
    pytest.importorskip("scipy")
    errors, costs = tables(seed, layers=5)
    budget = 0.5 * sum(row[4] + row[3] for row in costs.values())
    chosen = allocate(errors, costs, budget)
    every = [dict(zip(errors, bits, strict=True)) for bits in itertools.product((2, 3, 4, 8), repeat=5)]
    best = min(total(errors, bits_of) for bits_of in every if total(costs, bits_of) <= budget)
    assert total(costs, chosen) <= budget and total(errors, chosen) == pytest.approx(best, rel=1e-6)


def test_a_measured_error_that_grows_with_bits_is_no_gain():
    pytest.importorskip("scipy")
    errors = {"a": {2: 1e-6, 4: 2e-6}, "b": {2: 1e-6, 4: 1e-7}}
    costs = {"a": {2: 2.0, 4: 4.0}, "b": {2: 2.0, 4: 4.0}}
    assert allocate(errors, costs, 6.0) == {"a": 2, "b": 4}


def test_the_least_budget_is_met_exactly_and_less_is_refused():
    pytest.importorskip("scipy")
    errors, costs = tables(0, layers=3)
    least = sum(row[2] for row in costs.values())
    assert set(allocate(errors, costs, least).values()) == {2}
    with pytest.raises(ValueError, match="is less than the least that is possible"):
        allocate(errors, costs, 0.99 * least)


def test_without_scipy_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    errors, costs = tables(0, layers=2)
    with pytest.raises(RecipeError, match=r"pip install 'vitdfq\[analyze\]'"):
        allocate(errors, costs, 1000.0)
