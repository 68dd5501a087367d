"""Combinations of options that are refused when the student is built; those of a policy give way silently."""

import pytest
from tiny import make_tiny

from vitdfq.quantization import POLICIES, QUANTIZERS, quantize

TOKENS_WITH_TWIN = {"policy": "ptq4vit", "activation": {"per_token": True}}
GUIDED_HEADS = {"activation": {"observer": "output_error", "per_head": True}}
REFUSED = [
    ({"weight": {"quantizer": "log2"}}, "patch_embed.proj: weight.quantizer 'log2' does not go with weights; choices: uniform"),
    ({"activation": {"quantizer": "log2"}}, "patch_embed.proj: activation.quantizer 'log2' does not go with this input;"),
    ({"overrides": {"*.qk": {"activation": {"quantizer": "adalog"}}}}, "does not go with operands of attention"),
    ({"gelu": {"quantizer": "twin_softmax"}}, "blocks.0.mlp.fc2: activation.quantizer 'twin_softmax' does not go with this"),
    (
        {"weight": {"observer": "output_error", "per_channel": False}},
        "weight.observer 'output_error' does not go with per_channel: false",
    ),
    (GUIDED_HEADS, "blocks.0.attn.qk: activation.observer 'output_error' does not go with per_head: true"),
    ({"softmax": {"observer": "percentile"}}, "softmax.observer 'percentile' goes with quantizer 'uniform' only, not 'log2'"),
    ({"softmax": {"quantizer": "adalog", "symmetric": True}}, "softmax.symmetric True goes with quantizer 'uniform' only"),
    ({"overrides": {"*.1.*": {"softmax": {"observer": "mse"}}}}, "blocks.1.attn.av: softmax.observer 'mse' goes with"),
    ({"policy": "ptq4vit", "gelu": {"observer": "mse"}}, "fc2: gelu.observer 'mse' goes with quantizer 'uniform' only"),
    (
        {"activation": {"quantizer": "twin_gelu", "dynamic_operands": True}},
        "patch_embed.proj: activation.quantizer 'twin_gelu' does not go with this input;",
    ),
    (TOKENS_WITH_TWIN, "blocks.0.mlp.fc2: activation.per_token goes with quantizer 'uniform' only, not 'twin_gelu'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(change, message):
    with pytest.raises(ValueError) as caught:
        quantize(make_tiny("vit"), **change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_another_quantizer_drops_the_options_of_the_policy(policy):
    for name in sorted(QUANTIZERS):
        quantize(make_tiny("vit"), bits="w4a4", policy=policy, softmax={"bits": 4, "quantizer": name})
    for name in ("uniform", "twin_gelu"):
        student = quantize(make_tiny("vit"), policy=policy, activation={"observer": "percentile"}, gelu={"quantizer": name})
        kind = type(student.blocks[0].mlp.fc2.input_quantizer).__name__.lower()
        assert kind.removeprefix("dynamic").removeprefix("prefix") == name.replace("_", "")


def test_a_role_in_float_has_no_grid_to_go_with():
    student = quantize(make_tiny("vit"), softmax={"bits": None, "observer": "percentile"})
    assert student.blocks[0].attn.av.left_quantizer.bits is None


def test_an_override_with_another_quantizer_drops_the_options_of_the_role():
    later = {"*.1.*": {"softmax": {"quantizer": "log2"}}}
    student = quantize(make_tiny("vit"), softmax={"quantizer": "uniform", "observer": "percentile"}, overrides=later)
    assert student.blocks[0].attn.av.left_quantizer.observer == "percentile"
    assert student.blocks[1].attn.av.left_quantizer.steps_per_octave == 1
