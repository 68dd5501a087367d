"""Who writes keys and values, and who reads them: a change can be undone there exactly, and only there."""

import pytest
import torch
from tiny import TINY, make_tiny

from vitdfq.models import attention_sites, image_size, projections
from vitdfq.quantization import quantize


@pytest.fixture(params=sorted(TINY))
def plain(request):
    """A float student, whose linear layers all have biases, in double precision."""
    return quantize(make_tiny(request.param).double(), overrides={"*": {"bits": None}})


def difference(plain, change) -> float:
    images = torch.randn(3, 3, *image_size(plain), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = plain(images)
    change()
    return (plain(images) - expected).abs().max().item()


def shift(plain, written):
    """Add a constant a channel to what these rows write, and return it."""
    bias = plain.get_submodule(written.linear).bias
    amount = torch.randn(len(written.rows), dtype=bias.dtype, generator=torch.Generator().manual_seed(2))
    bias[list(written.rows)] += amount
    return amount


def test_softmax_does_not_see_a_shift_of_all_keys(plain):
    found = [projection for projection in projections(plain) if projection.shifts]
    assert len(found) == len(attention_sites(plain))
    assert difference(plain, lambda: [shift(plain, projection.keys) for projection in found]) < 1e-9


def test_a_shift_of_the_values_is_undone_in_the_reader(plain):
    found = [projection for projection in projections(plain) if projection.reader]

    def shift_and_undo():
        for projection in found:
            reader = plain.get_submodule(projection.reader)
            reader.bias -= reader.weight @ shift(plain, projection.values)

    assert difference(plain, shift_and_undo) < 1e-9


def test_a_shift_of_the_values_alone_is_seen(plain):
    for projection in projections(plain):
        assert difference(plain, lambda written=projection.values: shift(plain, written)) > 1e-3


def test_rows_are_heads_in_order_without_overlap(plain):
    for site, projection in zip(attention_sites(plain), projections(plain), strict=True):
        attention = plain.get_submodule(site.name)
        keys, values = projection.keys.rows, projection.values.rows
        assert not set(keys) & set(values)
        assert len(keys) == site.num_heads * attention.key_dim
        assert list(keys) == sorted(keys) and list(values) == sorted(values)
        assert projection.keys.linear == projection.values.linear
        assert max(values) < plain.get_submodule(projection.values.linear).out_features
