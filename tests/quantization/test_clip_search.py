import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization import clip_search
from vitdfq.quantization.clip_search import gram_errors, search_rows, search_tensor, shortlist, weighted_errors
from vitdfq.quantization.functional import choose_qparams, fake_quantize
from vitdfq.quantization.histogram import BINS, histogram
from vitdfq.quantization.observers import OBSERVERS, shrink_and_shift

NAMES = sorted(OBSERVERS)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(x, scale, zero_point, bits):
    return (fake_quantize(x, scale, zero_point, bits) - x).square().sum()


def inputs(columns, seed=0):
    """Second moments of correlated inputs of very different size."""
    x = randn(4 * columns, columns, seed=seed) @ randn(columns, columns, seed=seed + 1) * torch.logspace(-1, 1, columns)
    return x.T @ x / len(x)


def output_error(rows, scale, zero_point, bits, gram):
    delta = (fake_quantize(rows, scale, zero_point, bits) - rows).double()
    return ((delta @ gram.double()) * delta).sum(1)


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans(), st.sampled_from(NAMES))
@settings(deadline=None, max_examples=40)
def test_rows_never_worse_than_min_max(seed, bits, symmetric, observer):
    rows = randn(4, 200, seed=seed) ** 3
    found = search_rows(rows, bits, symmetric, observer=observer)
    min_max = choose_qparams(rows.amin(1, True), rows.amax(1, True), bits, symmetric)
    for row in range(4):
        assert error(rows[row], found[0][row], found[1][row], bits) <= (
            error(rows[row], min_max[0][row], min_max[1][row], bits) * 1.0001
        )


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
@settings(deadline=None, max_examples=20)
def test_rows_choose_as_a_loop_over_rows_and_factors_does(seed, bits, symmetric):
    rows = randn(7, 60, seed=seed) * torch.logspace(-3, 3, 7)[:, None]
    scale, zero_point = search_rows(rows, bits, symmetric)
    for row in range(7):
        grids = [
            choose_qparams(rows[row].amin() * factor, rows[row].amax() * factor, bits, symmetric)
            for factor in torch.linspace(0.35, 1.0, 80)
        ]
        best = min(grids, key=lambda grid: error(rows[row], *grid, bits).item())
        assert (scale[row].item(), zero_point[row].item()) == (best[0].item(), best[1].item())


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
@settings(deadline=None, max_examples=5)
def test_tensor_chooses_as_a_loop_over_both_ends_does(seed, bits, symmetric):
    x = randn(3000, seed=seed).exp() - 1
    low, high = x.amin().item(), x.amax().item()
    counts = torch.histc(x, BINS, low, high)
    centers = low + (high - low) / BINS * (torch.arange(BINS) + 0.5)
    shrink = torch.logspace(-1.7, 0.0, 32)
    grids = [choose_qparams(low * a, high * b, bits, symmetric) for a in shrink for b in shrink]
    best = min(grids, key=lambda grid: ((fake_quantize(centers, *grid, bits) - centers).square() * counts).sum().item())
    scale, zero_point = search_tensor(x, bits, symmetric)
    assert (scale.item(), zero_point.item()) == (best[0].item(), best[1].item())


def test_chunks_do_not_change_the_choice(monkeypatch):
    rows, gram = randn(40, 48), inputs(48)
    whole = search_rows(rows, 4, False), search_rows(rows, 4, False, gram), search_tensor(rows, 4, False)
    monkeypatch.setattr(clip_search, "ELEMENTS_AT_ONCE", {"cpu": 100, "cuda": 100})
    monkeypatch.setattr(clip_search, "PRODUCT_ELEMENTS_AT_ONCE", 4000)
    parts = search_rows(rows, 4, False), search_rows(rows, 4, False, gram), search_tensor(rows, 4, False)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
@settings(deadline=None, max_examples=20)
def test_gram_search_never_has_more_output_error_than_min_max(seed, bits, symmetric):
    rows, gram = randn(6, 40, seed=seed) ** 3, inputs(40, seed)
    found = search_rows(rows, bits, symmetric, gram)
    min_max = choose_qparams(rows.amin(1, True), rows.amax(1, True), bits, symmetric)
    assert (output_error(rows, *found, bits, gram) <= output_error(rows, *min_max, bits, gram) * 1.001).all()


def test_gram_search_beats_the_plain_one_on_the_output():
    rows, gram = randn(64, 96), inputs(96)
    guided, plain = (search_rows(rows, 3, False, g) for g in (gram, None))
    assert output_error(rows, *guided, 3, gram).sum() < 0.9 * output_error(rows, *plain, 3, gram).sum()


@pytest.mark.parametrize("symmetric", [False, True])
def test_identity_as_gram_measures_the_plain_error(symmetric):
    rows = randn(10, 64)
    grids = shrink_and_shift(rows, 4, symmetric)
    plain = weighted_errors(rows, None, *grids, 4)
    torch.testing.assert_close(gram_errors(rows, torch.eye(64)[None], *grids, 4), plain)
    best = plain.argmin(1, keepdim=True)
    assert torch.equal(search_rows(rows, 4, symmetric, torch.eye(64))[0], grids[0].gather(1, best))


def test_gram_blocks_go_to_rows_in_turn():
    rows, blocks = randn(6, 32), torch.stack([inputs(32, seed) for seed in (1, 2, 3)])
    together = search_rows(rows, 4, False, blocks)
    for row in range(6):
        alone = search_rows(rows[row : row + 1], 4, False, blocks[row % 3])
        assert alone[0] == together[0][row] and alone[1] == together[1][row]


@pytest.mark.parametrize("shape", [(31, 31), (32,), (4, 32, 32)])
def test_gram_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="gram has shape"):
        search_rows(randn(6, 32), 4, False, torch.zeros(shape))


def test_broken_gram_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        search_rows(randn(6, 32), 4, False, torch.full((32, 32), float("nan")))


def test_outlier_is_clipped():
    x = torch.cat([randn(100_000), torch.tensor([100.0])])
    scale, _ = search_tensor(x, 4, symmetric=False)
    assert scale < 1.0  # min-max would be 104 / 15
    exact = error(x, *choose_qparams(x.amin()[None, None], x.amax()[None, None], 4, False), 4)
    assert error(x, *search_tensor(x, 4, False), 4) < 0.2 * exact


@pytest.mark.parametrize("bits", [3, 4, 6])
@pytest.mark.parametrize("make", [torch.exp, torch.relu, torch.nn.functional.gelu, torch.sinh])
def test_histogram_search_is_close_to_exact_search(make, bits):
    x = make(randn(20_000, seed=1))
    grids = OBSERVERS["mse"].tensor(x[None], bits, False)
    exact = weighted_errors(x[None], None, *grids, bits).min()
    assert error(x, *search_tensor(x, bits, symmetric=False), bits) <= exact * 1.01


@pytest.mark.parametrize("observer", NAMES)
def test_order_does_not_matter(observer):
    x, importance = randn(50, 100, seed=2), torch.rand(100, generator=torch.Generator().manual_seed(0))
    shuffled = x[torch.randperm(50, generator=torch.Generator().manual_seed(3))]
    for weights in (None, importance):
        one, other = (search_tensor(values, 4, False, weights, observer=observer) for values in (x, shuffled))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_histogram_counts_every_value_once_for_each_row():
    rows = randn(3, 999) * torch.tensor([[1.0], [10.0], [0.0]])
    centers, counts = histogram(rows)
    assert counts.sum(1).tolist() == [999.0] * 3
    width = (rows.amax(1) - rows.amin(1)) / BINS
    torch.testing.assert_close((centers * counts).sum(1) / 999, rows.mean(1), rtol=0, atol=width.max().item())
    assert (centers[2] == 0).all()


def test_equal_importance_is_none_at_all():
    x = randn(64, 48).exp()
    plain, equal = (search_tensor(x, 4, False, weights) for weights in (None, torch.full((48,), 1e-20)))
    torch.testing.assert_close(error(x, *equal, 4), error(x, *plain, 4), rtol=0.01, atol=0)


def test_channels_of_no_importance_are_ignored():
    x, importance = randn(200, 8), torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 0.0, 0.0])
    loud = torch.cat([x[:, :5], 1000 * x[:, 5:]], 1)
    expected = search_tensor(x[:, :5], 4, False, importance[:5])
    found = search_tensor(loud, 4, False, importance)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_importance_lowers_the_weighted_error():
    x = randn(500, 16) * torch.logspace(0, 1.5, 16)
    importance = torch.logspace(0, -4, 16)  # small channels matter most
    guided, plain = (search_tensor(x, 4, False, weights) for weights in (importance, None))

    def weighted(grid):
        return ((fake_quantize(x, *grid, 4) - x).square() * importance).sum()

    assert weighted(guided) < 0.7 * weighted(plain)


def test_no_channel_of_importance_means_all_are_alike():
    x = randn(64, 8)
    assert torch.equal(search_tensor(x, 4, False, torch.zeros(8))[0], search_tensor(x, 4, False, torch.ones(8))[0])


@pytest.mark.parametrize("importance", [torch.ones(7), -torch.ones(8), torch.full((8,), float("nan")), torch.ones(1, 8)])
def test_importance_that_cannot_be_is_refused(importance):
    with pytest.raises(ValueError, match="importance"):
        search_tensor(randn(64, 8), 4, False, importance)


def test_shortlist_holds_the_best_min_max_and_no_near_copies():
    x = randn(5000).exp()
    scales, zero_points = OBSERVERS["mse"].tensor(x[None], 8, False)
    errors = weighted_errors(*(part for part in histogram(x[None])), scales, zero_points, 8)[0]
    chosen = shortlist(errors, scales[0], zero_points[0], 8).tolist()
    assert chosen[0] == errors.argmin() and chosen[-1] == len(errors) - 1
    assert len(chosen) <= clip_search.SHORTLIST + 1
    kept = torch.stack([scales[0, chosen[:-1]].log() / 0.1, zero_points[0, chosen[:-1]] / 17], 1).round()
    assert len(kept.unique(dim=0)) == len(kept) > 8


def test_cost_decides_and_min_max_is_a_candidate():
    x = torch.cat([randn(5000), torch.tensor([50.0])])

    def outlier(quantized):
        return (quantized - x)[-1].abs()

    min_max = choose_qparams(x.amin(), x.amax(), 4, False)
    scale, _ = search_tensor(x, 4, False, cost=outlier)
    assert scale.item() == min_max[0].item()
    by_error = search_tensor(x, 4, False, cost=lambda quantized: (quantized - x).square().sum())
    assert error(x, *by_error, 4) <= error(x, *search_tensor(x, 4, False), 4)


def test_cost_gets_the_tensor_in_its_shape_and_dtype():
    x = randn(2, 5, 8).bfloat16()
    seen = []
    search_tensor(x, 4, False, cost=lambda quantized: seen.append((quantized.shape, quantized.dtype)) or quantized.sum())
    assert set(seen) == {(x.shape, x.dtype)}


def test_cost_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        search_tensor(randn(50), 4, False, cost=lambda quantized: quantized.sum() * float("nan"))
