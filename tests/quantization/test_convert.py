import pytest
import torch

from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize, sites
from vitdfq.quantization.modules import mixed_weight_bits, named_sites, named_weighted_modules
from vitdfq.quantization.quantizers.base import Quantizer


def quantizers(student):
    return {name: part for name, part in student.named_modules() if isinstance(part, Quantizer)}


@pytest.mark.parametrize("bits", ["w3a3", "w4a4", "w4a8", "w6a6", "w8a8"])
def test_every_site_is_quantized(teacher, bits):
    student = quantize(teacher, bits=bits)
    assert not sites(student)  # nothing quantizable is left bare
    replaced = named_sites(student)
    assert set(replaced) == set(sites(teacher))
    assert all(quantizer.bits for site in replaced.values() for quantizer in site.quantizers.values())


def test_image_input_and_head_have_eight_bits_all_else_the_recipes(teacher):
    for name, quantizer in quantizers(quantize(teacher, bits="w4a4")).items():
        eight = name.startswith(("head", "patch_embed.proj", "stem."))
        assert quantizer.bits == (8 if eight else 4), name


def test_overrides_apply_in_order_and_by_role(tiny_vit):
    student = quantize(tiny_vit, overrides={"blocks.*": {"bits": 6}, "blocks.1.mlp.fc?": {"weight": {"bits": 3}}})
    bits = {name: quantizer.bits for name, quantizer in quantizers(student).items()}
    assert bits["blocks.0.mlp.fc1.weight_quantizer"] == 6
    assert bits["blocks.1.mlp.fc1.weight_quantizer"] == 3
    assert bits["blocks.1.mlp.fc1.input_quantizer"] == 6
    assert bits["blocks.1.attn.av.left_quantizer"] == 6


def test_none_bits_everywhere_is_the_identity(teacher, images):
    student = quantize(teacher, overrides={"*": {"bits": None}})
    torch.testing.assert_close(student(images), teacher(images), rtol=1e-5, atol=1e-5)


def test_softmax_quantizer_by_name(tiny_vit, images):
    for name in ("uniform", "log2", "log_sqrt2"):
        student = quantize(tiny_vit, bits="w8a8", softmax={"quantizer": name})
        calibrate(student, tiny_vit, images, steps=["observe"])
        assert student(images).isfinite().all()


def test_teacher_is_untouched(teacher, images):
    before, keys = teacher(images), list(teacher.state_dict())
    quantize(teacher)
    assert torch.equal(teacher(images), before)
    assert list(teacher.state_dict()) == keys
    assert "quantize" not in teacher.vitdfq


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bits": "w4a"}, "unknown bits 'w4a', did you mean 'w4a4'"),
        ({"weight": {"bits": 9}}, "weight.bits: bits is 9; choices: 2 to 8"),
        ({"weight": {"bits": 1}}, "bits is 1"),
        ({"activation": {"bits": "4"}}, "bits is '4'"),
        ({"weight": {"bit": 4}}, "did you mean 'bits'"),
        ({"softmax": {"quantizer": "log3"}}, "softmax.quantizer: unknown quantizer 'log3', did you mean 'log2'"),
        ({"overrides": {"block.*": {"bits": 8}}}, r"'block\.\*' matches no site; sites look like"),
        ({"overrides": {"head": {"weights": {"bits": 8}}}}, "did you mean 'weight'"),
        ({"overrides": {"head": {"bits": 12}}}, "bits is 12"),
    ],
)
def test_bad_arguments_are_one_line_with_the_choices(tiny_vit, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        quantize(tiny_vit, **kwargs)
    assert "\n" not in str(caught.value)


def test_the_student_is_where_its_model_is(teacher):
    """On the meta device here, which stands for a GPU: what a quantizer registers itself is born on the CPU."""
    student = quantize(teacher.to("meta"))
    assert {value.device.type for value in student.state_dict().values()} == {"meta"}


def test_overrides_change_the_policys_own(tiny_vit):
    """They follow the policy's, entry by entry: what the user does not say stays, also under a glob that the policy has."""
    student = quantize(
        tiny_vit,
        overrides={
            "patch_embed.proj": {"activation": {"bits": None}},
            "*": {"weight": {"bits": 5}},
            "head*": {"activation": {"bits": 6}},
        },
    )
    assert student.patch_embed.proj.input_quantizer.bits is None
    assert student.patch_embed.proj.weight_quantizer.bits == 5
    assert (student.head.weight_quantizer.bits, student.head.input_quantizer.bits) == (5, 6)
    student = quantize(tiny_vit, overrides={"patch_embed.proj": {"activation": {"bits": None}}})
    assert student.patch_embed.proj.weight_quantizer.bits == 8  # the policy's
    student = quantize(tiny_vit, overrides={"*": {"bits": 5}, "head*": {"bits": 6}})
    assert (student.head.weight_quantizer.bits, student.blocks[0].mlp.fc1.weight_quantizer.bits) == (6, 5)


def test_a_glob_of_submodules_matches_the_site_itself_too(tiny_vit):
    student = quantize(tiny_vit, overrides={"head.*": {"bits": 7}, "*.fc1.*": {"bits": 3}})
    assert student.head.weight_quantizer.bits == 7
    assert student.blocks[1].mlp.fc1.input_quantizer.bits == 3
    with pytest.raises(ValueError, match=r"'heads\.\*' matches no site"):
        quantize(tiny_vit, overrides={"heads.*": {"bits": 7}})


def test_bits_by_layer_are_told_from_a_few_exceptions(tiny_vit):
    assert mixed_weight_bits(quantize(tiny_vit, bits="w4a4")) is None  # embedding and head have 8
    assert mixed_weight_bits(quantize(tiny_vit, bits="w4a4", overrides={"*": {"weight": {"bits": None}}})) is None
    layers = {name: layer.weight.numel() for name, layer in named_weighted_modules(quantize(tiny_vit))}
    bits = {name: 2 + index % 4 for index, name in enumerate(layers)}
    student = quantize(tiny_vit, overrides={name: {"weight": {"bits": count}} for name, count in bits.items()})
    mean = sum(bits[name] * count for name, count in layers.items()) / sum(layers.values())
    assert mixed_weight_bits(student) == pytest.approx(mean, abs=0.006)
