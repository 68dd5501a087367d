import pytest
import timm
from torch import nn

from vitdfq.models import FAMILIES, family_of, load_teacher

VIT = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("resnet18", {}, "ResNet"),
        ("cait_xxs24_224", {"depth": 1, "embed_dim": 32, "num_heads": 2}, "Cait"),
        ("xcit_nano_12_p16_224", {"depth": 1, "embed_dim": 32, "num_heads": 2}, "Xcit"),
        ("levit_conv_128s", {}, "no family has LevitDistilled"),
        ("vit_base_r26_s32_224", VIT, "VisionTransformer with a HybridEmbed"),
        ("vit_tiny_patch16_224", {**VIT, "global_pool": "prr"}, "no family opens the AttentionPoolPrr at attn_pool"),
        ("vit_base_patch16_224", {**VIT, "attn_layer": "diff"}, "no family opens the DiffAttention at blocks.0.attn"),
    ],
)
def test_refused_in_one_line_that_says_what_to_do(name, arguments, reason):
    try:
        model = timm.create_model(name, **arguments)
    except (TypeError, AttributeError):
        pytest.skip("this timm has no such attention")
    with pytest.raises(ValueError, match=reason) as caught:
        load_teacher(model, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert "vitdfq/models/<family>.py" in message
    assert all(f"{family} (" in message for family in FAMILIES)


def test_refused_before_its_weights_are_downloaded():
    with pytest.raises(ValueError, match="cannot open resnet18"):
        load_teacher("resnet18")  # were it opened, the error would be that the hub cannot be reached


def test_a_subclass_may_compute_something_else():
    class MyVit(timm.models.vision_transformer.VisionTransformer):
        pass

    with pytest.raises(ValueError, match="no family has MyVit"):
        family_of(MyVit(**VIT))


def test_any_module():
    with pytest.raises(ValueError, match="cannot open Linear"):
        family_of(nn.Linear(1, 1))
