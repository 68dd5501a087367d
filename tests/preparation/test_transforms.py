"""Contracts of every transform: the function is unchanged, the original model too."""

import pytest
import torch

from vitdfq.preparation import TRANSFORMS, prepare


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_function_unchanged(teacher, images, name):
    before = teacher(images)
    try:
        prepared = prepare(teacher, steps=[name])
    except ValueError as refusal:
        assert "works on" in str(refusal)  # a clear no is as good as an unchanged function; silence is not
        return
    torch.testing.assert_close(prepared(images), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())
    assert torch.equal(teacher(images), before)
    assert prepared.vitdfq["prepare"] == {"steps": [name]}
    assert "prepare" not in teacher.vitdfq


def test_layer_scale_is_gone_after_folding(images):
    from tiny import make_tiny

    prepared = prepare(make_tiny("layer_scale"), steps=["fold_layer_scale"])
    assert not any("gamma" in name for name, _ in prepared.named_parameters())


def test_no_steps_is_a_plain_copy(tiny_vit):
    prepared = prepare(tiny_vit, steps=[])
    assert prepared is not tiny_vit
    assert all(torch.equal(a, b) for a, b in zip(prepared.parameters(), tiny_vit.parameters(), strict=True))


def test_unknown_step(tiny_vit):
    with pytest.raises(ValueError, match="did you mean 'fold_layer_scale'"):
        prepare(tiny_vit, steps=["fold_layerscale"])


def test_preparing_twice_records_both():
    from tiny import make_tiny

    twice = prepare(prepare(make_tiny("swin"), steps=["rotate_heads"]), steps=["rotate_mlp"])
    assert twice.vitdfq["prepare"] == {"steps": ["rotate_heads", "rotate_mlp"]}
