import pytest
import torch

from vitdfq.models import record

NAMES = ["blocks.0.attn.softmax", "blocks.1.attn.av", "blocks.2"]


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_gives_the_outputs_of_the_last_pass(tiny_vit, images):
    with record(tiny_vit, NAMES) as outputs:
        assert outputs == {}
        tiny_vit(images[:2])
        tiny_vit(images)
    assert list(outputs) == NAMES
    assert outputs["blocks.0.attn.softmax"].shape == (8, 2, 17, 17)
    assert outputs["blocks.2"].shape == (8, 17, 32)


def test_gradient_flows_through_what_is_recorded(tiny_vit, images):
    images = images.requires_grad_()
    with record(tiny_vit, NAMES[:1]) as outputs:
        tiny_vit(images)
    outputs[NAMES[0]].square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_leaves_nothing_behind(tiny_vit, images):
    with record(tiny_vit, NAMES) as outputs:
        assert hooks(tiny_vit) == 3
    assert hooks(tiny_vit) == 0
    tiny_vit(images)
    assert outputs == {}


def test_leaves_nothing_behind_after_an_exception(tiny_vit):
    with pytest.raises(KeyboardInterrupt), record(tiny_vit, NAMES):
        raise KeyboardInterrupt
    assert hooks(tiny_vit) == 0


def test_unknown_name_is_refused_before_any_hook(tiny_vit):
    message = "no submodule 'blocks.0.attn.sofmax', did you mean 'blocks.0.attn.softmax'"
    with pytest.raises(ValueError, match=message), record(tiny_vit, [NAMES[1], "blocks.0.attn.sofmax"]):
        pass
    assert hooks(tiny_vit) == 0


def test_a_name_given_twice_is_hooked_once(tiny_vit):
    with record(tiny_vit, [NAMES[0], NAMES[0]]):
        assert hooks(tiny_vit) == 1
