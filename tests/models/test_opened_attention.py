"""One opened attention beside timm's: masks, gates, and when it may run fused."""

import copy

import pytest
import torch
from timm.layers.attention import Attention
from timm.layers.attention_pool import AttentionPoolLatent
from torch import nn
from torch.nn import functional as F

from vitdfq.models import MatMul, Softmax, untouched
from vitdfq.models.vit_attention import OpenedAttention, OpenedLatentPool


class LoudMatMul(nn.Module):
    def forward(self, a, b):
        return 2 * (a @ b)


def timm_attention(**arguments) -> Attention:
    torch.manual_seed(0)
    return Attention(16, num_heads=2, qkv_bias=True, **arguments).eval()


def opened_attention(attention: nn.Module) -> OpenedAttention:
    return OpenedAttention(copy.deepcopy(attention)).eval()


MASKS = {
    "none": None,
    "boolean": torch.rand(5, 5, generator=torch.Generator().manual_seed(2)).gt(0.5) | torch.eye(5, dtype=torch.bool),
    "float": torch.randn(5, 5, generator=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "hooked"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_are_timms(mask, hooked):
    attention, x = timm_attention(), torch.randn(2, 5, 16)
    opened = opened_attention(attention)
    if hooked:
        opened.softmax.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(opened(x, attn_mask=MASKS[mask]), attention(x, attn_mask=MASKS[mask]))


@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "hooked"])
def test_causal_attends_to_the_past_only(hooked):
    opened, x = opened_attention(timm_attention()), torch.randn(2, 5, 16)
    if hooked:
        opened.qk.register_forward_hook(lambda *_: None)
    changed = torch.cat([x[:, :4], torch.randn(2, 1, 16)], dim=1)
    torch.testing.assert_close(opened(x, is_causal=True)[:, :4], opened(changed, is_causal=True)[:, :4])
    assert not torch.allclose(opened(x)[:, :4], opened(changed)[:, :4])


def test_gate_and_output_norm_are_timms():
    try:
        attention = timm_attention(gated=True, scale_norm=True, norm_layer=nn.LayerNorm)
    except TypeError:
        pytest.skip("this timm has no gated attention")
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(opened_attention(attention)(x), attention(x))


@pytest.mark.parametrize(
    "add_hook",
    [
        lambda module: module.register_forward_hook(lambda *_: None),
        lambda module: module.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_full_backward_hook(lambda *_: None),
        lambda module: module.register_full_backward_pre_hook(lambda *_: None),
    ],
    ids=["forward", "forward_pre", "backward", "backward_pre"],
)
def test_any_hook_touches(add_hook):
    modules = MatMul(), Softmax(), MatMul()
    assert untouched(*modules)
    handle = add_hook(modules[1])
    assert not untouched(*modules)
    handle.remove()
    assert untouched(*modules)


def test_another_type_touches_and_is_used():
    opened, x = opened_attention(timm_attention()), torch.randn(1, 5, 16)
    before = opened(x)
    opened.av = LoudMatMul()
    assert not untouched(opened.qk, opened.softmax, opened.av)
    bias = opened.proj.bias
    torch.testing.assert_close(opened(x) - bias, 2 * (before - bias))


def test_runs_fused_only_without_hooks(monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    opened, x = opened_attention(timm_attention()), torch.randn(1, 5, 16)
    opened(x)
    assert len(calls) == 1
    handle = opened.qk.register_forward_hook(lambda *_: None)
    opened(x)
    assert len(calls) == 1
    handle.remove()
    opened(x)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_len": 3, "pool_type": "avg"},
        {"latent_len": 3, "pool_type": ""},
        {"latent_len": 2, "qk_norm": True, "norm_layer": nn.LayerNorm},
        {"pos_embed": "abs", "feat_size": 9, "q_proj": False},
        {"out_features": 0},
    ],
    ids=str,
)
def test_a_pooling_by_attention(arguments):
    torch.manual_seed(0)
    try:
        pool = AttentionPoolLatent(8, num_heads=2, **arguments).eval().double().requires_grad_(False)
    except TypeError:
        pytest.skip("this timm has no such pooling")
    for parameter in pool.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(OpenedLatentPool(pool).eval()(x), pool(x), rtol=1e-9, atol=1e-9)
    mask = torch.rand(2, 1, 1, 9) > 0.3
    mask[..., 0] = True
    torch.testing.assert_close(OpenedLatentPool(pool).eval()(x, mask), pool(x, mask), rtol=1e-9, atol=1e-9)
