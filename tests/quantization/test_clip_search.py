import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization.clip_search import search_rows, search_tensor
from vitdfq.quantization.functional import choose_qparams, fake_quantize


def error(x, scale, zero_point, bits):
    return (fake_quantize(x, scale, zero_point, bits) - x).square().sum()


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
@settings(deadline=None, max_examples=25)
def test_rows_never_worse_than_min_max(seed, bits, symmetric):
    rows = torch.randn(4, 200, generator=torch.Generator().manual_seed(seed)) ** 3
    found = search_rows(rows, bits, symmetric)
    min_max = choose_qparams(rows.amin(1, True), rows.amax(1, True), bits, symmetric)
    assert error(rows, *found, bits) <= error(rows, *min_max, bits) * 1.0001


def test_outlier_is_clipped():
    x = torch.cat([torch.randn(100_000, generator=torch.Generator().manual_seed(0)), torch.tensor([100.0])])
    scale, _ = search_tensor(x, 4, symmetric=False)
    assert scale < 1.0  # min-max would be 104 / 15
    exact = error(x, *choose_qparams(x.amin()[None, None], x.amax()[None, None], 4, False), 4)
    assert error(x, *search_tensor(x, 4, False), 4) < 0.2 * exact


def test_histogram_search_is_close_to_exact_search():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1)).exp()
    scale, zero_point = search_tensor(x, 4, symmetric=False)
    best = min(
        error(x, *choose_qparams(torch.zeros(1, 1), x.max()[None, None] * factor, 4, False), 4)
        for factor in torch.linspace(0.02, 1, 300)
    )
    assert error(x, scale, zero_point, 4) <= best * 1.02


def test_order_does_not_matter():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(2))
    assert torch.equal(search_tensor(x, 4, False)[0], search_tensor(x.flip(0), 4, False)[0])
