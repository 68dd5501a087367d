"""What writes queries, keys and values, and what reads the values: a change can be undone there exactly, and only there."""

import pytest
import torch
from tiny import TINY, make_tiny

from vitdfq.models import attention_sites, image_size, load_teacher, projections
from vitdfq.models.any_timm import is_watched
from vitdfq.preparation import prepare
from vitdfq.preparation.fold import has_batch_norm
from vitdfq.quantization import quantize


@pytest.fixture(params=sorted(TINY))
def plain(request):
    """A float student, whose linear layers all have biases, in double precision."""
    return quantize(make_tiny(request.param).double(), overrides={"*": {"bits": None}})


def difference(plain, change) -> float:
    """The largest change of the logits, relative to the largest logit."""
    images = torch.randn(3, 3, *image_size(plain), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = plain(images)
    change()
    return ((plain(images) - expected).abs().max() / expected.abs().max()).item()


def shift(plain, written):
    """Add a constant per channel to what these rows write, and return it."""
    bias = plain.get_submodule(written.linear).bias
    amount = torch.randn(len(written.rows), dtype=bias.dtype, generator=torch.Generator().manual_seed(2))
    bias[list(written.rows)] += amount
    return amount


def test_softmax_does_not_see_a_shift_of_all_keys(plain):
    shifted = [projection for projection in projections(plain) if projection.shifts]
    if not shifted:
        pytest.skip("positions or norms of the keys see it")
    assert difference(plain, lambda: [shift(plain, projection.keys) for projection in shifted]) < 1e-9


def test_a_shift_of_the_values_is_undone_in_the_reader(plain):
    read = [projection for projection in projections(plain) if projection.reader]

    def shift_and_undo():
        for projection in read:
            reader = plain.get_submodule(projection.reader)
            reader.bias -= reader.weight @ shift(plain, projection.values)

    assert difference(plain, shift_and_undo) < 1e-9


def test_a_shift_of_the_values_alone_is_noticed(plain):
    for projection in projections(plain):
        assert difference(plain, lambda written=projection.values: shift(plain, written)) > 1e-3


def rotate(plain, written, num_heads):
    """Rotate what these rows write, each head by the same matrix."""
    linear, rows = plain.get_submodule(written.linear), torch.tensor(written.rows).view(num_heads, -1)
    generator = torch.Generator().manual_seed(4)
    q, _ = torch.linalg.qr(torch.randn(rows.shape[1], rows.shape[1], generator=generator, dtype=torch.float64))
    for head in rows:
        linear.weight[head], linear.bias[head] = q @ linear.weight[head], q @ linear.bias[head]
    if written.bias:
        beside = plain.get_parameter(written.bias)
        beside.copy_((beside.view(num_heads, -1) @ q.T).flatten())


@pytest.mark.parametrize("kind", sorted(TINY))
def test_scores_keep_a_rotation_of_queries_and_keys(kind):
    teacher = make_tiny(kind).double()
    if is_watched(teacher):
        pytest.skip("what writes queries and keys is not known")
    assert all(not projection.queries for projection in projections(teacher)) or not has_batch_norm(teacher)
    plain = quantize(prepare(teacher, steps=["fold_batch_norm"]), overrides={"*": {"bits": None}})
    rotated = [
        (site, projection)
        for site, projection in zip(attention_sites(plain), projections(plain), strict=True)
        if projection.queries
    ]
    if not rotated:
        pytest.skip("rotary positions do not commute with a rotation")

    def rotate_both():
        for site, projection in rotated:
            rotate(plain, projection.queries, site.num_heads)
            rotate(plain, projection.keys, site.num_heads)

    assert difference(plain, rotate_both) < 1e-9
    for site, projection in rotated:
        assert difference(plain, lambda rows=projection.queries, heads=site.num_heads: rotate(plain, rows, heads)) > 1e-6


def test_normed_queries_are_not_to_be_rotated():
    arguments = TINY["vit"][1] | {"qk_norm": True}
    model = load_teacher("vit_tiny_patch16_224", pretrained=False, **arguments)
    assert all(projection.queries is None and not projection.shifts for projection in projections(model))


def test_rows_are_heads_in_order_without_overlap(plain):
    if is_watched(plain):
        assert not projections(plain)  # what writes keys and values is not known
        return
    for site, projection in zip(attention_sites(plain), projections(plain), strict=True):
        attention = plain.get_submodule(site.name)
        keys, values = projection.keys.rows, projection.values.rows
        assert not set(keys) & set(values)
        assert len(keys) == site.num_heads * attention.key_dim
        assert list(keys) == sorted(keys) and list(values) == sorted(values)
        assert projection.keys.linear == projection.values.linear
        assert max(values) < plain.get_submodule(projection.values.linear).out_features
