"""Modules as people have them: the teacher computes the same as the module, or one line says what cannot be kept."""

import copy
import types

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from vitdfq.calibration import calibrate
from vitdfq.checkpoint import load, save
from vitdfq.models import build, gives, load_teacher
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize

ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
LEVIT = {"img_size": 32, "stem_type": "s8", "embed_dim": [32, 48], "key_dim": 8, "depth": [2, 1], "num_heads": [2, 3]}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(num_classes: int = 7) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **ARGUMENTS).eval()


def distilled() -> nn.Module:
    return timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7, **ARGUMENTS).eval()


def reset(name: str, arguments: dict, *given) -> nn.Module:
    module = timm.create_model(name, num_classes=9, **arguments).eval()
    module.reset_classifier(*given)
    return module


def changed(change, module=None) -> nn.Module:
    module = module or vit()
    change(module)
    return module


def set_head(head: nn.Module):
    return lambda module: setattr(module, "head", head)


def share_block(module: nn.Module) -> None:
    module.blocks[1] = module.blocks[0]


def share_storage(module: nn.Module) -> None:
    module.head_dist.weight = nn.Parameter(module.head.weight.data)


def other_dropout(module: nn.Module) -> None:
    module.patch_drop = timm.layers.PatchDropout(0.5)
    module.blocks[0].mlp.drop1 = nn.Dropout(0.3)


TAKEN = {
    "reset_classifier": lambda: reset("vit_tiny_patch16_224", ARGUMENTS, 7),
    "reset_classifier with another pooling": lambda: reset("vit_tiny_patch16_224", ARGUMENTS, 7, "avg"),
    "reset_classifier of a distilled model": lambda: reset("deit_tiny_distilled_patch16_224", ARGUMENTS, 7),
    "reset_classifier of Swin": lambda: reset("swin_tiny_patch4_window7_224", SWIN, 7),
    "reset_classifier of LeViT": lambda: reset("levit_128s", LEVIT, 7),
    "a Linear head": lambda: changed(set_head(nn.Linear(32, 5))),
    "a head without bias": lambda: changed(set_head(nn.Linear(32, 5, bias=False))),
    "a layer without bias": lambda: changed(lambda m: setattr(m.blocks[0].mlp, "fc1", nn.Linear(32, 128, bias=False))),
    "a head with dropout": lambda: changed(set_head(nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 5)))),
    "one weight under two names": lambda: changed(lambda m: setattr(m.head_dist, "weight", m.head.weight), distilled()),
    "one module under two names": lambda: changed(lambda m: setattr(m, "head_dist", m.head), distilled()),
    "a block used twice": lambda: changed(share_block),
    "two weights in one storage": lambda: changed(share_storage, distilled()),
    "other dropout": lambda: changed(other_dropout),
    "weight_norm": lambda: changed(lambda m: parametrizations.weight_norm(m.blocks[0].mlp.fc1)),
    "spectral_norm": lambda: changed(lambda m: parametrizations.spectral_norm(m.head)),
    "weight_norm of the old kind": lambda: changed(lambda m: weight_norm(m.blocks[0].mlp.fc1)),
    "pruning": lambda: changed(lambda m: prune.l1_unstructured(m.blocks[0].mlp.fc1, "weight", amount=0.3)),
    "torch's LayerNorm for timm's": lambda: changed(lambda m: setattr(m, "norm", nn.LayerNorm(32, eps=1e-6))),
    "a compiled forward": lambda: changed(lambda m: m.compile(backend="eager")),
    "training mode": lambda: vit().train(),
    "frozen parameters": lambda: vit().requires_grad_(False),
    "a hook that only reads": lambda: changed(lambda m: m.blocks[0].register_forward_hook(lambda *given: None)),
    "another image size": lambda: changed(lambda m: m.set_input_size((48, 48))),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_taken_computes_the_same_and_survives_a_checkpoint(kind, tmp_path):
    torch.manual_seed(0)
    module = TAKEN[kind]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, *((48, 48) if kind == "another image size" else (32, 32)))
    training = module.training
    teacher = load_teacher(module)
    assert module.training == training
    expected = module.eval()(images)
    torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-5)
    assert build(teacher.vitdfq).state_dict().keys() == teacher.state_dict().keys()
    prepared = prepare(teacher)
    torch.testing.assert_close(prepared(images), expected, rtol=1e-3, atol=1e-4)
    student = calibrate(quantize(prepared, bits="w8a8"), prepared, images, steps=["observe"])
    assert torch.equal(load(save(student, tmp_path))(images), student(images))


WRAPPED = {
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda module: torch.compile(module, backend="eager"),
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "two": lambda module: nn.DataParallel(torch.compile(module, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_the_model_in_a_wrapper_is_taken(wrapper):
    module = vit()
    assert torch.equal(load_teacher(WRAPPED[wrapper](module))(IMAGES), load_teacher(module)(IMAGES))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, caplog):
    module = vit().to(dtype)
    teacher = load_teacher(module)
    assert module.head.weight.dtype == dtype
    assert teacher.head.weight.dtype == torch.float32
    assert torch.equal(teacher.head.weight, module.head.weight.float())
    assert f"weights of {dtype} became float32" in caplog.text


def test_hooks_and_ties_do_not_come_along():
    module = changed(lambda m: setattr(m, "head_dist", m.head), distilled())
    module.head.register_forward_hook(lambda *given: None)
    teacher = load_teacher(module)
    assert teacher.head is not teacher.head_dist
    assert teacher.head.weight.data_ptr() != teacher.head_dist.weight.data_ptr() != module.head.weight.data_ptr()
    assert not any(part._forward_hooks for part in teacher.modules())


def test_names_of_classes_that_are_gone_are_dropped():
    module = vit()
    module.pretrained_cfg.update(num_classes=1000, label_names=[str(index) for index in range(1000)])
    module.head = nn.Linear(32, 5)
    teacher = load_teacher(module)
    assert teacher.pretrained_cfg["num_classes"] == 5 and "label_names" not in teacher.pretrained_cfg
    module.pretrained_cfg["label_names"] = list("abcde")
    assert load_teacher(module).pretrained_cfg["label_names"] == list("abcde")


def gelu_of_another_kind(module: nn.Module) -> None:
    module.blocks[0].mlp.act = nn.GELU(approximate="tanh")


def own_forward(module: nn.Module) -> None:
    block = module.blocks[1]
    block.forward = types.MethodType(lambda self, x: x, block)


def scaled_mask(module: nn.Module) -> None:
    module.layers[0].blocks[1].attn.relative_position_index.zero_()


def nan(module: nn.Module) -> None:
    module.head.weight.data[0, 0] = torch.nan


def only_one_head(module: nn.Module) -> None:
    module.head = nn.Linear(32, 5)


def identity_head(module: nn.Module) -> None:
    module.head = nn.Identity()


MLP = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))
REFUSED = {
    "an activation": (
        lambda: changed(lambda m: setattr(m.blocks[0].mlp, "act", nn.ReLU())),
        "blocks.0.mlp.act is ReLU, not GELU",
    ),
    "a setting": (lambda: changed(gelu_of_another_kind), "blocks.0.mlp.act.approximate is 'tanh', not 'none'"),
    "an eps": (lambda: changed(lambda m: setattr(m.norm, "eps", 1e-3)), "norm.eps is 0.001, not 1e-06"),
    "a norm": (lambda: changed(lambda m: setattr(m, "norm", nn.Identity())), "norm is Identity, not "),
    "a forward": (lambda: changed(own_forward), "blocks.1 has a forward of its own"),
    "a hook": (lambda: changed(lambda m: m.blocks[0].register_forward_hook(lambda p, a, x: 2 * x)), "a hook of blocks.0 changes"),
    "an MLP as head": (lambda: changed(set_head(MLP)), r"head is Sequential\(Linear, ReLU, Linear\), not Linear"),
    "one head of two": (lambda: changed(only_one_head, distilled()), "head has 5, head_dist has 7"),
    "fewer blocks": (lambda: changed(lambda m: setattr(m, "blocks", m.blocks[:1])), "it has no blocks.1"),
    "a part": (lambda: changed(lambda m: m.add_module("aux", nn.Linear(2, 2))), r"aux \(Linear\) is not part of it"),
    "a parameter": (
        lambda: changed(lambda m: m.register_parameter("prompt", nn.Parameter(torch.zeros(2)))),
        "prompt is not part",
    ),
    "a compiled block": (
        lambda: changed(lambda m: m.blocks.__setitem__(0, torch.compile(m.blocks[0], backend="eager"))),
        "blocks.0 is wrapped by torch.compile: put its ._orig_mod in its place",
    ),
    "NaN": (lambda: changed(nan), "head.weight of this VisionTransformer is not finite"),
    "meta": (lambda: vit().to("meta"), "has no weights: it is on the meta device"),
    "a Swin without its head's parts": (
        lambda: changed(set_head(nn.Linear(32, 5)), timm.create_model("swin_tiny_patch4_window7_224", **SWIN)),
        "head is Linear, not ClassifierHead",
    ),
    "a buffer that is not saved": (
        lambda: changed(scaled_mask, timm.create_model("swin_tiny_patch4_window7_224", **SWIN)),
        "relative_position_index, a buffer that is not in the state_dict, has other values",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_checkpoint_cannot_hold_is_refused_by_name(kind):
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message) as caught:
        load_teacher(make())
    assert "\n" not in str(caught.value)
    assert "keyword arguments" not in str(caught.value)  # timm remembers them, so they are not to blame


def test_the_number_of_classes_is_that_of_the_head():
    module = changed(set_head(nn.Linear(32, 5)))
    assert load_teacher(module, num_classes=5).num_classes == 5
    with pytest.raises(ValueError, match="num_classes is 7; the classifier of this VisionTransformer has 5"):
        load_teacher(module, num_classes=7)


def test_prepared_and_quantized_models_are_refused(tiny_vit):
    for model in (prepare(tiny_vit), quantize(tiny_vit)):
        with pytest.raises(ValueError, match="is quantized or prepared already"):
            load_teacher(model)


def test_a_module_that_cannot_be_copied():
    class Lock:
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a lock")

    module = vit()
    module.lock = Lock()
    with pytest.raises(ValueError, match="cannot be copied: cannot pickle a lock"):
        load_teacher(module)


def test_the_module_stays_as_it_is():
    module = changed(set_head(nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 5)))).train()
    before, parts = copy.deepcopy(module.state_dict()), [type(part) for part in module.modules()]
    load_teacher(module)
    assert [type(part) for part in module.modules()] == parts and module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_module_of_inference_mode_gives_a_teacher_that_can_be_trained():
    with torch.inference_mode():
        module = vit()
        teacher = load_teacher(module)
    assert module.head.weight.is_inference() and not any(value.is_inference() for value in teacher.state_dict().values())


def test_a_model_inside_another_module_is_named():
    outer = nn.Module()
    outer.net = nn.Sequential(nn.Identity(), vit())
    with pytest.raises(ValueError, match=r"Module was not built .*; its part net.1 was: .*get_submodule\('net.1'\)"):
        load_teacher(outer)


def test_a_head_without_values_yet():
    with pytest.raises(ValueError, match=r"head.weight of this VisionTransformer has no values yet: run the module once"):
        load_teacher(changed(set_head(nn.LazyLinear(5))))


def test_a_module_that_torch_has_quantized():
    module = vit()
    module.register_module("extra", nn.Linear(2, 2))
    module.extra._register_state_dict_hook(lambda part, state, prefix, metadata: state.update({f"{prefix}dtype": torch.qint8}))
    with pytest.raises(ValueError, match=r"extra.dtype of this VisionTransformer is no tensor; load_teacher takes float models"):
        load_teacher(module)


def test_without_a_classifier_it_gives_features():
    module = changed(identity_head)
    teacher = load_teacher(module)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert gives(teacher) == "features" and torch.equal(teacher(images), module.eval()(images))
