"""Contracts of every transform: the function is unchanged, the original model too."""

import pytest
import torch

from vitdfq.models import build, family_of
from vitdfq.preparation import TRANSFORMS, prepare
from vitdfq.preparation.prepare import ROTATIONS, default_steps


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
    assert prepared.vitdfq["prepare"] == {"steps": [name] if differs(prepared, teacher) else []}
    assert "prepare" not in teacher.vitdfq


def differs(model, other) -> bool:
    state, others = model.state_dict(), other.state_dict()
    return list(state) != list(others) or any(not torch.equal(state[key], others[key]) for key in state)


def test_a_step_without_effect_is_not_recorded(tiny_vit):
    assert prepare(tiny_vit, steps=["fold_layer_scale", "rotate_heads"]).vitdfq["prepare"] == {"steps": ["rotate_heads"]}


def test_default_steps_have_an_effect_each(teacher):
    steps = default_steps(teacher)
    assert prepare(teacher).vitdfq["prepare"] == {"steps": steps}
    for name in steps:
        assert differs(prepare(teacher, steps=[name]), teacher)


def test_default_steps_rotate_what_a_family_can_rotate(teacher):
    steps = [name for name in default_steps(teacher) if name in ROTATIONS]
    if family_of(teacher).rotation is None:
        assert not steps
    else:
        assert steps == (
            ["rotate_heads", "rotate_mlp"] if family_of(teacher).name in ("swin_v2", "swin_v2_cr") else list(ROTATIONS)
        )


def test_steps_are_taken_again_on_an_untrained_model(teacher, images):
    """As `load` does, also with the steps of an older checkpoint, which name what folded nothing."""
    prepared = prepare(teacher)
    steps = ["fold_batch_norm", "fold_layer_scale", *prepared.vitdfq["prepare"]["steps"]]
    again = prepare(build(teacher.vitdfq), steps=steps)
    again.load_state_dict(prepared.state_dict())
    torch.testing.assert_close(again(images), prepared(images), rtol=1e-5, atol=1e-5)


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
