"""The family of last resort: what is opened by watching computes what timm computes, quantized too, saved and exported."""

import copy

import pytest
import timm
import torch
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.checkpoint import load, save
from vitdfq.models import family_of, image_size, load_teacher, record, units
from vitdfq.models.any_timm import ANY
from vitdfq.models.attention import MatMul
from vitdfq.models.multiplications import how_opened, multiplications
from vitdfq.models.sites import PaddedConv2d
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize, sites
from vitdfq.quantization.modules import QuantMatMul

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
KINDS = {  # a kind of attention each, as small as timm builds it
    "vit": ("vit_tiny_patch16_224", VIT),
    "differential": ("vit_tiny_patch16_224", {**VIT, "attn_layer": "diff"}),
    "pooled_by_rank": ("vit_tiny_patch16_224", {**VIT, "global_pool": "prr"}),
    "grouped_queries": ("qwen3_vit_306m", {**VIT, "num_heads": 4}),
    "talking_heads": ("cait_xxs24_224", {**VIT, "depth": 2}),
    "channels": ("xcit_nano_12_p16_224", {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}),
    "side_biases": ("beit_base_patch16_224", VIT),
    "rotary": ("vit_small_patch16_dinov3_qkvb", VIT),
    "cosine": (
        "swinv2_tiny_window8_256",
        {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]},
    ),
    "softmax_right": (
        "levit_conv_128s",
        {"img_size": 64, "embed_dim": [32, 48], "key_dim": 8, "depth": [1, 1], "num_heads": [2, 3]},
    ),
    "positional": (
        "convit_tiny",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "local_up_to_layer": 1},
    ),
    "pooled_queries": (
        "hiera_tiny_224",
        {"img_size": (64, 64), "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1), "q_pool": 2},
    ),
    "einsum": ("samvit_base_patch16_224", {**VIT, "img_size": 64, "global_attn_indexes": (1,), "window_size": 4}),
    "mvit": ("mvitv2_tiny", {"img_size": 64}),
    "two_levels": ("tnt_s_patch16_224", {"img_size": 32, "embed_dim": 32, "inner_dim": 8, "depth": 2, "num_heads_outer": 2}),
    "cross": ("crossvit_9_240", {"img_scale": (1.0, 1.0), "embed_dim": (16, 32), "num_heads": (2, 2), "depth": ((1, 1, 0),)}),
    "partition": ("maxvit_tiny_tf_224", {"img_size": 64, "depths": (1, 1), "embed_dim": (32, 64), "stem_width": 16}),
    "blocks": ("nest_tiny", {"img_size": 64}),
    "outlook": ("volo_d1_224", {"img_size": 64}),
    "pooled_tokens": ("pit_ti_224", {"img_size": 64, "base_dims": [16, 16], "depth": [1, 1], "heads": [2, 2]}),
    "conv_stem": ("vit_tiny_r_s16_p8_224", {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2}),
    "elements": ("swiftformer_xs", {}),
    "shared_parts": (
        "coat_lite_tiny",
        {"img_size": 64, "embed_dims": (32, 32, 64, 64), "serial_depths": (2, 1, 1, 1)},
    ),
}
QUICK = ("vit", "differential", "talking_heads", "channels", "grouped_queries", "positional", "pooled_queries")
MARKED = [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in KINDS]
EXPORTED = ("talking_heads", "differential", "channels", "pooled_queries", "einsum", "partition", "cross")


def plain_model(kind: str) -> nn.Module:
    """timm's model, with parameters that all matter."""
    name, arguments = KINDS[kind]
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, **{"num_classes": 10, **arguments}).eval().requires_grad_(False)
    except (TypeError, AttributeError, RuntimeError):
        if timm.__version__ >= "1.0.31":
            raise
        pytest.skip("this timm has no such model")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and path.endswith("weight"):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif parameter.ndim > 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(0.2 * noise + (0.0 if path.endswith("bias") else 1.0))
    return model


def some_images(model: nn.Module, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *image_size(model), generator=torch.Generator().manual_seed(1))


def error(values: torch.Tensor, expected: torch.Tensor) -> float:
    return float((values - expected).abs().max() / expected.abs().max())


@pytest.fixture(params=MARKED, scope="module")
def pair(request) -> tuple[nn.Module, nn.Module]:
    """(timm's model, what is loaded of it)."""
    plain = plain_model(request.param)
    return plain, load_teacher(plain, family="any", **KINDS[request.param][1])


@torch.no_grad()
def test_equals_timm(pair):
    plain, opened = pair
    images = some_images(opened)
    expected = plain(images)
    assert error(opened(images), expected) < 1e-5
    products = [name for name, part in opened.named_modules() if isinstance(part, MatMul)]
    with record(opened, products) as outputs:  # one by one, at another batch size than was watched
        assert error(opened(images), expected) < 1e-5
    assert outputs.keys() == set(products)
    x = images
    for unit in units(opened):
        x = unit.forward(x)
    assert torch.equal(x, opened(images))


@torch.no_grad()
def test_a_wrong_product_is_noticed(pair):
    opened = copy.deepcopy(pair[1])
    images = some_images(opened)
    expected = opened(images)
    products = [part for part in opened.modules() if isinstance(part, MatMul)]
    if not products:
        pytest.skip("nothing but layers multiplies")
    for product in products:
        product.register_forward_hook(lambda module, args, output: 1.2 * output)
    assert error(opened(images), expected) > 1e-4


def test_quantized_saved_and_loaded(pair, tmp_path):
    teacher = pair[1]
    prepared = prepare(teacher)
    images = some_images(teacher)
    student = quantize(prepared, bits="w8a8")
    calibrate(student, prepared, images, steps=["observe"])
    expected, given = teacher(images), student(images)
    assert (given - expected).norm() < 0.05 * expected.norm()
    save(student, tmp_path)
    assert torch.equal(load(tmp_path)(images), given)


def test_everything_is_a_site(pair):
    counted = multiplications(pair[1])
    assert counted.share > 0.98, counted.line()
    assert f"{len(pair[1].watched.opened)} attentions" in how_opened(pair[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORTED)
def test_exported(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    from vitdfq.onnx import export

    teacher = load_teacher(plain_model(kind), family="any", **KINDS[kind][1])
    student = quantize(teacher, bits="w8a8")
    calibrate(student, teacher, some_images(teacher), steps=["observe"])
    assert export(student, tmp_path / "model.onnx")["least_site_sqnr_db"] > 40


@pytest.mark.parametrize("kind", ["differential", "pooled_by_rank", "talking_heads"])
def test_it_opens_what_no_other_family_opens(kind):
    model = plain_model(kind)
    assert family_of(model) is ANY
    assert load_teacher(model, **KINDS[kind][1]).vitdfq["model"]["family"] == "any"


def test_softmax_is_quantized_on_whichever_side_it_stands():
    teacher = load_teacher(plain_model("softmax_right"), family="any", **KINDS["softmax_right"][1])
    student = quantize(teacher, bits="w4a4")
    products = [name for name, part in student.named_modules() if isinstance(part, QuantMatMul) and part.renormalize]
    attentions = [name.rpartition(".")[0] for name in products]
    assert sorted(attentions) == sorted(teacher.watched.opened)
    with record(teacher, [f"{name}:input" for name in products]) as maps:
        teacher(some_images(teacher))
    for rows in maps.values():
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))


def test_no_softmax_quantizer_where_no_operand_is_softmax():
    """Talking heads mix the maps behind the softmax; of the class attention nothing does."""
    teacher = load_teacher(plain_model("talking_heads"), family="any", **KINDS["talking_heads"][1])
    facts = {
        f"{name}.{product}": fact
        for name in teacher.watched.opened
        for product, fact in teacher.get_submodule(name).products.items()
    }
    assert not any(fact.reads_softmax for name, fact in facts.items() if name.startswith("blocks."))
    assert sum(fact.reads_softmax for fact in facts.values()) == 2


def test_a_layer_that_is_passed_by_is_called():
    """BEiT multiplies with the weight of `qkv`: a quantized layer would not be used."""
    plain = plain_model("side_biases")
    teacher = load_teacher(plain, family="any", **KINDS["side_biases"][1])
    with record(teacher, ["blocks.0.attn.qkv"]) as outputs:
        teacher(some_images(teacher))
    assert "blocks.0.attn.qkv" in outputs


def test_padding_that_depends_on_the_image_is_known():
    teacher = load_teacher(plain_model("partition"), family="any", **KINDS["partition"][1])
    padded = {name for name, part in teacher.named_modules() if isinstance(part, PaddedConv2d)}
    assert "stem.conv1" in padded and padded <= set(sites(teacher))


def test_images_of_another_size_are_refused_in_one_line():
    teacher = load_teacher(plain_model("talking_heads"), family="any", **KINDS["talking_heads"][1])
    with pytest.raises(ValueError, match="opened by watching for images of one size"):
        teacher.blocks[0].attn(torch.zeros(1, 9, 32))
    with pytest.raises(ValueError, match="take images of 32 x 32"):
        units(teacher)[0].forward(torch.zeros(1, 3, 40, 40))


def test_an_error_of_opening_is_one_line(monkeypatch):
    """The planted fault: an opened model that computes something else is not taken."""
    monkeypatch.setattr(MatMul, "forward", lambda self, a, b: 1.01 * (a @ b))
    with pytest.raises(ValueError, match="does not compute what timm's model does") as caught:
        load_teacher(plain_model("talking_heads"), family="any", **KINDS["talking_heads"][1])
    assert "\n" not in str(caught.value)
