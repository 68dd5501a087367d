"""Contracts of every policy, by name, and what each says."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.calibration import calibrate
from vitdfq.checkpoint.save_load import load, save
from vitdfq.preparation import prepare
from vitdfq.quantization import POLICIES, QUANTIZERS, quantize
from vitdfq.quantization.modules import QuantConv2d, is_dynamic, named_sites, weighted_modules
from vitdfq.quantization.quantizers.uniform import Uniform


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("kind", ["deit", "swin"])
def test_calibrates_and_survives_a_checkpoint(policy, kind, tmp_path):
    teacher = make_tiny(kind)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    student = calibrate(quantize(teacher, bits="w6a6", policy=policy), teacher, images, steps=["observe"])
    logits = student(images)
    wanted = teacher(images)
    assert (logits - wanted).square().mean() < 0.3 * wanted.square().mean()
    assert torch.equal(load(save(student, tmp_path))(images), logits)


def test_sites_follow_the_policy():
    teacher = make_tiny("vit")
    block = quantize(teacher, policy="ptq4vit").blocks[0]
    assert type(block.mlp.fc2.input_quantizer).__name__ == "TwinGelu"
    assert type(block.mlp.fc1.input_quantizer).__name__ == "Uniform"
    assert type(block.attn.av.left_quantizer).__name__ == "TwinSoftmax"
    assert block.mlp.fc1.weight_quantizer.scale.shape == ()
    student = quantize(teacher, policy="repq_vit")
    assert not student.blocks[0].attn.av.renormalize
    assert {module.weight_quantizer.bits for module in weighted_modules(student)} == {4}
    heads = quantize(teacher, policy="adalog").blocks[0].attn
    assert heads.qk.left_quantizer.scale.shape == (2, 1, 1) == heads.av.right_quantizer.scale.shape
    assert quantize(teacher, policy="psaq_vit").blocks[0].attn.av.left_quantizer.bits is None


DYNAMIC_KINDS = [("vit", "head"), ("swin", "head.fc"), ("levit", "head.linear"), ("any", "head.fc")]


@pytest.mark.parametrize(("kind", "head"), DYNAMIC_KINDS)
@pytest.mark.parametrize("bits", ["w2a2", "w4a4", "w8a8", "w4a16"])
def test_the_dynamic_policy_has_ranges_that_follow_the_values(kind, head, bits):
    """It differs from the static one in the inputs of linear layers and in the operands of attention, and in nothing else."""
    teacher = make_tiny(kind)
    dynamic, static = (quantize(teacher, bits=bits, policy=policy) for policy in ("vitdfq_dynamic", "vitdfq"))
    products = products_of(teacher)
    for (name, site), other in zip(named_sites(dynamic).items(), named_sites(static).values(), strict=True):
        assert [part.bits for part in site.quantizers.values()] == [part.bits for part in other.quantizers.values()], name
        for attribute, quantizer in site.operand_quantizers.items():
            facts = products.get(name)
            is_softmax = facts is not None and facts.reads_softmax and attribute == "left_quantizer"
            is_static = isinstance(site, QuantConv2d) or is_softmax or quantizer.bits is None
            assert quantizer.is_dynamic != is_static, (name, attribute)
            if quantizer.is_dynamic and facts is not None:
                right = "matrix" if facts.reads_softmax else "column"
                assert quantizer.along == ("token" if attribute == "left_quantizer" else right), (name, attribute)
    assert is_dynamic(dynamic) == (bits != "w4a16") and not is_dynamic(static)
    assert dynamic.get_submodule(head).input_quantizer.bits == (None if bits == "w4a16" else 8)


def products_of(teacher):
    """The products of attention by name."""
    return {
        f"{name}.{product}": facts
        for name, part in teacher.named_modules()
        for product, facts in getattr(part, "products", {}).items()
    }


def test_a_quantizer_without_ranges_per_token_makes_those_of_the_policy_give_way(tiny_vit):
    student = quantize(tiny_vit, policy="vitdfq_dynamic", overrides={"*.0.mlp.fc2": {"gelu": {"quantizer": "twin_gelu"}}})
    kinds = [type(block.mlp.fc2.input_quantizer).__name__ for block in student.blocks]
    assert kinds == ["TwinGelu", "DynamicUniform", "DynamicUniform"]
    asked = {"activation": {"per_token": True}, "gelu": {"quantizer": "twin_gelu"}}
    for change in (asked, {"overrides": {"*.fc2": asked}}):
        with pytest.raises(ValueError, match=r"activation\.per_token goes with quantizer 'uniform' only, not 'twin_gelu'"):
            quantize(tiny_vit, policy="vitdfq_dynamic", **change)


@pytest.mark.parametrize("kind", ["vit", "swin"])
@pytest.mark.parametrize("bits", ["w4a4", "w8a8"])
def test_openvinos_policy_differs_in_the_operands_of_attention(kind, bits):
    """They are symmetric; softmax's grid and everything else is as in "vitdfq"."""
    teacher = make_tiny(kind)
    student, other = (named_sites(quantize(teacher, bits=bits, policy=policy)) for policy in ("openvino", "vitdfq"))
    products = products_of(teacher)
    for name, site in student.items():
        for attribute, quantizer in site.operand_quantizers.items():
            is_operand = name in products and not (products[name].reads_softmax and attribute == "left_quantizer")
            assert not is_operand or quantizer.symmetric, (name, attribute)
            assert is_operand == (str(quantizer) != str(other[name].quantizers[attribute])), (name, attribute)


@pytest.mark.parametrize("kind", ["vit", "swin", "levit", "any"])
@pytest.mark.parametrize("bits", ["w4a4", "w8a8"])
def test_tensorrts_policy_has_its_grids_only(kind, bits):
    for name, site in named_sites(quantize(make_tiny(kind), bits=bits, policy="tensorrt")).items():
        for attribute, quantizer in site.quantizers.items():
            assert type(quantizer) is Uniform and quantizer.symmetric, name
            assert quantizer.granularity == ("channel" if attribute == "weight_quantizer" else "tensor"), name


def test_ends_have_eight_bits_of_weights_too():
    student = quantize(make_tiny("vit"), bits="w3a3")
    assert student.patch_embed.proj.weight_quantizer.bits == student.head.weight_quantizer.bits == 8


@pytest.mark.parametrize(
    "change",
    [
        {"weight": {"group_size": 16}},
        {"weight": {"observer": "percentile"}},
        {"weight": {"observer": "output_error"}},
        {"activation": {"observer": "output_error"}},
        {"activation": {"per_head": False}},
        {"activation": {"per_prefix_token": False}},
        {"activation": {"per_token": True}},
        {"gelu": {"bits": 8}},
        {"softmax": {"quantizer": "adalog"}},
        {"softmax": {"quantizer": "shifted_log2"}},
    ],
)
def test_changes_by_role_survive_a_checkpoint(change, tmp_path):
    teacher = prepare(make_tiny("vit"), steps=["rotate_residual", "rotate_mlp"])
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    student = calibrate(quantize(teacher, **change), teacher, images, steps=["observe"])
    plain = calibrate(quantize(teacher), teacher, images, steps=["observe"])
    assert str(student) != str(plain)
    # the fitted shift may be 0, as rounding has it, and then it is log2
    assert "shifted_log2" in str(change) or not torch.equal(student(images), plain(images))
    assert torch.equal(load(save(student, tmp_path))(images), student(images))


def test_gelu_role_reaches_fc2_alone():
    student = quantize(make_tiny("vit"), gelu={"bits": 7})
    bits = {name: part.input_quantizer.bits for name, part in student.named_modules() if hasattr(part, "input_quantizer")}
    assert {name for name, value in bits.items() if value == 7} == {name for name in bits if name.endswith("fc2")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "repqvit"}, "unknown quantization policy 'repqvit', did you mean 'repq_vit'"),
        ({"weight": {"observer": "ms"}}, "weight.observer: unknown observer 'ms', did you mean 'mse'"),
        ({"weight": {"group_size": 7}}, r"blocks\.0\.attn\.qkv: group_size 7 does not divide|group_size 7"),
        ({"softmax": {"per_head": True}}, "softmax.per_head: unknown key; choices: bits, quantizer, "),
    ],
)
def test_bad_policies(change, message):
    with pytest.raises(ValueError, match=message):
        quantize(make_tiny("vit"), **change)


@pytest.mark.parametrize(
    ("bits", "quantizer"),
    [("w3a3", "log2"), ("w4a4", "log2"), ("w5a5", "twin_softmax"), ("w6a6", "twin_softmax"), ("w8a8", "uniform")],
)
def test_softmax_grid_of_the_default_policy(bits, quantizer):
    """Whole octaves where bits are few, two grids where these have levels enough, even steps where those suffice."""
    product = quantize(make_tiny("vit"), bits=bits).blocks[0].attn.av
    assert type(product.left_quantizer) is type(QUANTIZERS[quantizer](8))
    assert getattr(product.left_quantizer, "steps_per_octave", 1) == 1
    assert product.renormalize == (quantizer != "uniform")
