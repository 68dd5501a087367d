import pytest
import timm
from torch import nn

from vitdfq.models import FAMILIES, family_of, load_teacher

VIT = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "family", "reason"),
    [
        ("resnet18", {}, None, "no part of this ResNet attends to anything: it is no transformer"),
        ("resnet18", {}, "vit", "family vit does not have this ResNet"),
        ("levit_conv_128s", {}, "levit", "family levit does not have this LevitDistilled"),
        ("vit_base_r26_s32_224", VIT, "vit", "family vit does not have this VisionTransformer"),
        ("vit_base_patch16_224", {**VIT, "attn_layer": "diff"}, "vit", "family vit does not have this VisionTransformer"),
    ],
)
def test_refused_in_one_line_that_says_what_to_do(name, arguments, family, reason):
    try:
        model = timm.create_model(name, **arguments)
    except (TypeError, AttributeError):
        pytest.skip("this timm has no such attention")
    with pytest.raises(ValueError, match=reason) as caught:
        load_teacher(model, family=family, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert "vitdfq/models/<family>.py" in message
    assert all(f"{family} (" in message for family in FAMILIES)


def test_an_unknown_family():
    with pytest.raises(ValueError, match="unknown family 'vits', did you mean 'vit'"):
        load_teacher("vit_tiny_patch16_224", family="vits", pretrained=False, **VIT)


def test_refused_before_its_weights_are_downloaded():
    with pytest.raises(ValueError, match="cannot open resnet18"):
        load_teacher("resnet18")  # were it opened, the error would be that the hub cannot be reached


def test_a_subclass_may_compute_something_else():
    class MyVit(timm.models.vision_transformer.VisionTransformer):
        pass

    model = MyVit(**VIT)
    assert not FAMILIES["vit"].matches(model)
    with pytest.raises(ValueError, match="was not built with timm.create_model"):
        load_teacher(model)


def test_any_module():
    with pytest.raises(ValueError, match="cannot open Linear"):
        family_of(nn.Linear(1, 1))
