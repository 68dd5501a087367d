"""Dictionaries of tensors merged into one and taken apart."""

import torch

from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed


def tensors(value):
    return {"x": torch.full((2,), value), "half": torch.ones((), dtype=torch.bfloat16)}


def test_take_prefixed_undoes_merge_prefixed():
    one, two = tensors(1.0), merge_prefixed(inner=tensors(2.0), empty={})
    merged = merge_prefixed(one=one, two=two)
    assert take_prefixed(merged, "one").keys() == one.keys() and take_prefixed(merged, "two").keys() == two.keys()
    assert take_prefixed(take_prefixed(merged, "two"), "inner")["x"].equal(tensors(2.0)["x"])


def test_a_prefix_is_a_whole_name():
    merged = merge_prefixed(one=tensors(1.0))
    assert take_prefixed(merged, "on") == {} and take_prefixed(merged, "two") == {}
