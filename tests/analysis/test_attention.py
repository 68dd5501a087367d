"""Attention maps of a student beside its teacher's."""

import pytest
import torch
from tiny import make_tiny

import vitdfq
from vitdfq.analysis.attention import attention_errors
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.untrained import calibrated_switches
from vitdfq.models import attention_sites, image_size
from vitdfq.runtime.run import Run


def errors_of(teacher, images, **options) -> list:
    switches = calibrated_switches(vitdfq.quantize(teacher, **options), teacher, images, ["observe"], 0, Run())
    return attention_errors(HeldOutPasses(switches, teacher, images), teacher)


@pytest.mark.parametrize("kind", ["vit", "swin", "levit"])
def test_few_bits_change_the_maps_of_every_head(kind):
    teacher = make_tiny(kind)
    images = torch.randn(4, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    few, many = (errors_of(teacher, images, bits=bits) for bits in ("w2a2", "w8a8"))
    sites = attention_sites(teacher)
    assert [row.site for row in few] == [site.name for site in sites]
    for row, other, site in zip(few, many, sites, strict=True):
        assert len(row.kl_by_head) == site.num_heads
        assert all(kl > 3 * exact >= 0 for kl, exact in zip(row.kl_by_head, other.kl_by_head, strict=True))
        assert row.kl == pytest.approx(sum(row.kl_by_head) / site.num_heads) and row.entropy == pytest.approx(other.entropy)


def test_maps_of_a_site_in_float_behind_a_float_embedding_do_not_differ(tiny_vit, images):
    overrides = {name: {"bits": None} for name in ("patch_embed.*", "blocks.0.attn.*")}
    first, second, *_ = errors_of(tiny_vit, images, bits="w2a2", overrides=overrides)
    assert abs(first.kl) < 1e-6 < 1e-3 < second.kl
