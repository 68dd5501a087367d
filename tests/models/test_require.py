"""Every public function answers a model that it cannot take in one line."""

import pytest
import timm
import torch
from torch import nn

import vitdfq
from vitdfq.models import require, require_float

BARE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 5}
FLOAT = {
    "synthesize": lambda model: vitdfq.synthesize(model, method="noise", num_images=1),
    "prepare": lambda model: vitdfq.prepare(model),
    "quantize": lambda model: vitdfq.quantize(model),
}
STUDENT = {
    "calibrate": lambda model: vitdfq.calibrate(model, model, torch.zeros(1, 3, 32, 32)),
    "to_integer": vitdfq.to_integer,
    "save": lambda model: vitdfq.save(model, "never/written"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_a_model_that_is_not_opened(name):
    with pytest.raises(ValueError, match=rf"{name} takes .*VisionTransformer is not opened: load_teacher\(model\) does it"):
        FLOAT[name](timm.create_model("vit_tiny_patch16_224", **BARE).eval())


@pytest.mark.parametrize("name", STUDENT)
def test_a_model_that_is_not_quantized(name):
    with pytest.raises(ValueError, match=f"{name} takes what quantize returned; this VisionTransformer is not quantized"):
        STUDENT[name](timm.create_model("vit_tiny_patch16_224", **BARE).eval())


@pytest.mark.parametrize("name", [*FLOAT, *STUDENT])
def test_a_wrapped_model(name, tiny_vit):
    model = tiny_vit if name in FLOAT else vitdfq.quantize(tiny_vit)
    wrapped = {nn.DataParallel(model): "DataParallel: pass its .module"}
    wrapped[torch.compile(model, backend="eager")] = "torch.compile: pass its ._orig_mod"
    for wrapper, advice in wrapped.items():
        with pytest.raises(ValueError, match=f"{name} takes the model itself; this one is wrapped by {advice}"):
            (FLOAT | STUDENT)[name](wrapper)


CHANGES = {
    "training mode": (lambda model: model.train(), r"call model.eval\(\) first"),
    "half precision": (lambda model: model.half(), r"half precision \(torch.float16\): call model.float\(\) first"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [*FLOAT, *STUDENT])
def test_a_model_in_another_state(name, change, tiny_vit):
    make, message = CHANGES[change]
    with pytest.raises(ValueError, match=f"^{name}.*{message}"):
        (FLOAT | STUDENT)[name](make(tiny_vit if name in FLOAT else vitdfq.quantize(tiny_vit)))


@pytest.mark.parametrize("name", ["save", "evaluate"])
def test_double_precision_where_float32_is_read_or_written(name, tiny_vit):
    verbs = {"save": STUDENT["save"], "evaluate": lambda model: vitdfq.evaluate(model, dataset="zoo:fashion-mnist")}
    with pytest.raises(ValueError, match=rf"{name} works in float32; cls_token is torch.float64: call model.float\(\) first"):
        verbs[name](vitdfq.quantize(tiny_vit).double())


@pytest.mark.parametrize("name", [*STUDENT, "evaluate"])
def test_a_student_without_weights(name, tiny_vit):
    verbs = STUDENT | {"evaluate": lambda model: vitdfq.evaluate(model, dataset="zoo:fashion-mnist")}
    with pytest.raises(ValueError, match=f"{name}: this VisionTransformer has no weights: cls_token is on the meta device"):
        verbs[name](vitdfq.quantize(tiny_vit).to("meta"))


def test_a_name_is_no_model():
    with pytest.raises(ValueError, match="evaluate takes a model, not a str"):
        vitdfq.evaluate("zoo:vit", dataset="zoo:fashion-mnist")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"this str is not opened: load_teacher\(model\) does it"):
        require_float("vit_tiny_patch16_224", "quantize")  # pyright: ignore[reportArgumentType]


def test_a_teacher_of_another_preparation(tiny_vit, images):
    student = vitdfq.quantize(vitdfq.prepare(tiny_vit))
    with pytest.raises(ValueError, match=r"prepared by \['rotate_residual'.*the teacher is prepared by \[\]: pass that model"):
        vitdfq.calibrate(student, tiny_vit, images)


def test_a_teacher_of_another_structure(tiny_vit, images):
    other = vitdfq.load_teacher(timm.create_model("vit_tiny_patch16_224", **BARE))
    with pytest.raises(ValueError, match=r"the student is of .*, the teacher is .* built otherwise"):
        vitdfq.calibrate(vitdfq.quantize(tiny_vit), other, images)


def test_every_public_function_is_listed_for_completion():
    assert {"load_teacher", "synthesize", "prepare", "quantize", "calibrate", "save", "load"} <= set(dir(vitdfq))


@pytest.mark.parametrize("name", ["prepare", "quantize"])
def test_a_teacher_that_was_changed_since_it_was_loaded(name, tiny_vit):
    tiny_vit.blocks[1].mlp.act = nn.ReLU()
    with pytest.warns(UserWarning, match=f"{name}: .*blocks.1.mlp.act is ReLU, not GELU.: its student cannot be saved") as caught:
        FLOAT[name](tiny_vit)
    assert caught[0].filename == __file__


def test_another_precision_is_no_change(tiny_vit):
    assert vitdfq.quantize(tiny_vit.double()).head.weight.dtype == torch.float64


FOLDERS = {"load": lambda model: vitdfq.load(model), "push": lambda model: vitdfq.push(model, "owner/name")}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_model_where_a_folder_is_expected(name, tiny_vit):
    with pytest.raises(ValueError, match=r"folder .*, not a VisionTransformer"):
        FOLDERS[name](tiny_vit)


def test_the_model_to_compare_with_is_built_once(tiny_vit, monkeypatch):
    """Building a large model, also without storage, takes longer than `quantize` itself."""
    builds = []
    whole = require.build
    monkeypatch.setattr(require, "build", lambda spec: builds.append(spec) or whole(spec))
    require._as_loaded.cache_clear()
    vitdfq.quantize(tiny_vit, bits="w8a8")
    vitdfq.quantize(tiny_vit, bits="w4a4")
    vitdfq.prepare(tiny_vit)
    assert builds == [{"model": tiny_vit.vitdfq["model"]}]
