"""Teachers from names, folders and modules; and the description that builds their structure again."""

import copy
import json

import pytest
import timm
import torch
from torch import nn

from vitdfq.models import attention_sites, build, gives, image_range, load_teacher, structure
from vitdfq.models import load as load_module

ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def check_round_trip(teacher: nn.Module) -> None:
    """Its description, written and read as JSON, builds a structure that its weights turn into the teacher."""
    rebuilt = build(json.loads(json.dumps(teacher.vitdfq)))
    assert shapes(rebuilt) == shapes(teacher)
    assert attention_sites(rebuilt) == attention_sites(teacher)
    assert rebuilt.vitdfq == teacher.vitdfq
    rebuilt.load_state_dict(teacher.state_dict())
    assert torch.equal(rebuilt(IMAGES), teacher(IMAGES))


def test_a_folder(folder):
    teacher = load_teacher(f"local-dir:{folder}")
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert {value.dtype for value in teacher.state_dict().values()} == {torch.float32}
    expected = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.testing.assert_close(teacher(IMAGES), expected(IMAGES))
    check_round_trip(teacher)


def test_a_folder_as_a_path(folder):
    assert torch.equal(load_teacher(folder)(IMAGES), load_teacher(f"local-dir:{folder}")(IMAGES))


@pytest.mark.parametrize(
    ("given", "message"),
    [(None, "not a NoneType"), ({"head.bias": torch.zeros(1)}, r"not a dict: build the module with timm .*load_state_dict")],
)
def test_what_is_neither_a_name_nor_a_module(given, message):
    with pytest.raises(ValueError, match=f"load_teacher takes the name of a model, a folder or a timm module, {message}"):
        load_teacher(given)


def test_the_description_says_all_of_a_folder_but_where_it_was(folder):
    model = load_teacher(f"local-dir:{folder}").vitdfq["model"]
    assert model["name"] == f"local-dir:{folder}"
    assert model["architecture"] == "vit_tiny_patch16_224.toy"
    assert model["num_classes"] == 5
    assert model["model_args"] == ARGUMENTS
    assert model["pretrained_cfg"]["label_names"] == ["a", "b", "c", "d", "e"]
    assert model["pretrained_cfg"]["mean"] == [0.25] * 3
    assert "file" not in model["pretrained_cfg"]


def test_a_folders_own_mean_and_std_survive_the_round_trip(folder):
    rebuilt = build(load_teacher(f"local-dir:{folder}").vitdfq)
    low, high = image_range(rebuilt)
    assert (low.unique().item(), high.unique().item()) == (-0.5, 1.5)


def test_a_folder_loaded_for_another_image_size(folder):
    teacher = load_teacher(f"local-dir:{folder}", img_size=48)
    assert teacher.vitdfq["model"]["model_args"]["img_size"] == 48
    assert attention_sites(teacher)[0].grid == (6, 6)
    assert shapes(build(teacher.vitdfq)) == shapes(teacher)


def test_a_folder_without_its_head(folder):
    teacher, headless = load_teacher(f"local-dir:{folder}"), load_teacher(f"local-dir:{folder}", num_classes=0)
    assert gives(teacher) == "classes" and gives(headless) == "features"
    tokens = teacher.forward_features(IMAGES)
    assert torch.equal(headless(IMAGES), teacher.forward_head(tokens, pre_logits=True))
    assert torch.equal(load_teacher(f"local-dir:{folder}", num_classes=0, global_pool="")(IMAGES), tokens)
    check_round_trip(headless)


def test_the_zoo_is_the_folders_that_have_a_config(folder, monkeypatch):
    monkeypatch.setattr(load_module, "ZOO", folder.parent)
    assert load_teacher("zoo:tiny").vitdfq["model"]["name"] == "zoo:tiny"
    with pytest.raises(ValueError, match=r"unknown zoo model 'tinny', did you mean 'tiny'\?; choices: tiny"):
        load_teacher("zoo:tinny")


def test_a_module_is_copied_and_stays_as_it_is():
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS).train()
    before = copy.deepcopy(module.state_dict())
    types = [type(submodule) for submodule in module.modules()]
    teacher = load_teacher(module, **ARGUMENTS)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert [type(submodule) for submodule in module.modules()] == types
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not hasattr(module, "vitdfq")
    torch.testing.assert_close(teacher(IMAGES), module.eval()(IMAGES))
    check_round_trip(teacher)


def test_a_module_in_half_precision_becomes_float32():
    teacher = load_teacher(timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS).half(), **ARGUMENTS)
    assert teacher(IMAGES).dtype == torch.float32


def test_a_teacher_can_be_loaded_again(folder):
    teacher = load_teacher(f"local-dir:{folder}")
    again = load_teacher(teacher)
    assert again is not teacher
    assert torch.equal(again(IMAGES), teacher(IMAGES))
    assert again.vitdfq["model"]["model_args"] == teacher.vitdfq["model"]["model_args"]


@pytest.mark.parametrize("wrong", [{"depth": 3}, {"num_heads": 4}, {"qk_norm": True}, {"act_layer": "relu"}])
def test_a_module_with_other_arguments_than_given_is_refused(wrong):
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS)
    with pytest.raises(ValueError, match="pass the timm keyword arguments it was built with") as caught:
        load_teacher(module, **{**ARGUMENTS, **wrong})
    assert "\n" not in str(caught.value)


def test_other_heads_are_noticed_where_the_logits_do_not_show_them():
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS)
    for block in module.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    with pytest.raises(ValueError, match="num_heads is 2, not 4"):
        load_teacher(module, **{**ARGUMENTS, "num_heads": 4})


def test_a_module_of_forgotten_arguments():
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS)
    module._model_args = {}  # what timm before 1.0.31 remembers
    with pytest.raises(ValueError, match="pass the timm keyword arguments it was built with"):
        load_teacher(module)
    check_round_trip(load_teacher(module, **ARGUMENTS))


def test_a_module_not_built_with_timm_is_refused():
    with pytest.raises(ValueError, match="Linear was not built with timm"):
        load_teacher(nn.Linear(2, 2))


def test_arguments_that_are_no_json_are_refused():
    with pytest.raises(ValueError, match="must be plain JSON values"):
        load_teacher("vit_tiny_patch16_224", pretrained=False, norm_layer=nn.LayerNorm, **ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", ARGUMENTS),
        ("deit_tiny_distilled_patch16_224.fb_in1k", ARGUMENTS),
        ("vit_small_patch14_reg4_dinov2.lvd142m", {**ARGUMENTS, "num_classes": 5}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)},
        ),
    ],
)
def test_the_structure_of_a_name_needs_no_weights(name, arguments):
    model = structure(name, **arguments)
    assert model.vitdfq["model"]["architecture"].startswith(name)
    check_round_trip(model)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "features_only"])
def test_other_ways_to_weights_are_refused(argument):
    with pytest.raises(ValueError, match=f"does not take {argument}"):
        load_teacher("vit_tiny_patch16_224", **{argument: "x"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tinny_patch16_224", "unknown timm model 'deit_tinny_patch16_224', did you mean 'deit_tiny_patch16_224'"),
        ("deit_tiny_patch16_224.fb_in1", "unknown tag .* did you mean 'deit_tiny_patch16_224.fb_in1k'"),
        ("timm/deit_tiny_patch16_224", "looks like a path or a hub repository; write local-dir:PATH"),
        ("/some/folder", "looks like a path"),
        ("local_dir:/some/folder", "did you mean 'local-dir'"),
        ("local-dir:", "write local-dir:PATH"),
    ],
)
def test_a_misspelt_name(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_teacher(name)
    assert "\n" not in str(caught.value)


def test_a_misspelt_argument():
    with pytest.raises(ValueError, match="unexpected keyword argument 'img_sise'"):
        load_teacher("vit_tiny_patch16_224", pretrained=False, img_sise=32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_pool": ""}, r"classifies each token \(global_pool ''\); choose a pooling, or num_classes=0 for features"),
        ({"in_chans": 1}, "only RGB"),
    ],
)
def test_what_is_no_classifier_of_rgb_images(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_teacher("vit_tiny_patch16_224", pretrained=False, **{**ARGUMENTS, **arguments})


def test_a_head_that_the_weights_do_not_have_is_refused(folder):
    with pytest.raises(ValueError, match="has weights for 1000 classes"):
        load_teacher("deit_tiny_patch16_224", num_classes=9)
    with pytest.raises(ValueError, match="has weights for 5 classes; for num_classes=9 it has no trained head"):
        load_teacher(f"local-dir:{folder}", num_classes=9)
