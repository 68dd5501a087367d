"""A save writes what `load` gives back, all of it or nothing."""

import types
from pathlib import Path

import pytest
import torch
from torch import nn

import vitdfq
from vitdfq.checkpoint import save_load
from vitdfq.common.errors import InputError


def calibrated(model, images, bits):
    return vitdfq.calibrate(vitdfq.quantize(model, bits=bits), model, images, steps=["observe"])


@pytest.fixture
def first(tiny_vit, images, tmp_path):
    """A folder with a checkpoint, and its files."""
    folder = vitdfq.save(calibrated(tiny_vit, images, "w4a4"), tmp_path / "folder")
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_text("of the first student")
    return folder, contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", ["write_temporary", "write_config"])
def test_whatever_fails_the_checkpoint_before_stays_whole(first, tiny_vit, images, step, monkeypatch):
    folder, before = first

    def fail(*given, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save_load if step == "write_config" else save_load.safetensors_io, step, fail)
    with pytest.raises(OSError, match="No space left"):
        vitdfq.save(calibrated(tiny_vit, images, "w8a8"), folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_cannot_be_replaced_leaves_the_checkpoint_before(first, tiny_vit, images, name, monkeypatch):
    folder, before = first
    replace = Path.replace

    def refuse(path, target):
        if path.name.endswith(".tmp") and target.name == name:
            raise PermissionError(name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError, match=name):
        vitdfq.save(calibrated(tiny_vit, images, "w8a8"), folder)
    assert contents(folder) == before


def test_a_file_in_place_of_the_folder(tiny_vit, images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"save: .*file is a file; a checkpoint is a folder"):
        vitdfq.save(calibrated(tiny_vit, images, "w8a8"), tmp_path / "file")


def test_a_save_that_was_killed_between_its_two_files_is_noticed(first, tiny_vit, images, monkeypatch):
    folder, _ = first
    other = calibrated(tiny_vit, images.flip(0) * 0.9, "w4a4")  # its tensors fit the config of the first student
    replace = Path.replace

    def replace_weights_only(path, target):
        if target.name == "config.json":
            return target  # as if killed before it
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_weights_only)
    vitdfq.save(other, folder)
    with pytest.raises(InputError, match=r"not the weights that config.json was saved with: .*interrupted"):
        vitdfq.load(folder)
    monkeypatch.undo()
    assert torch.equal(vitdfq.load(vitdfq.save(other, folder))(images), other(images))


def own_forward(student: nn.Module) -> None:
    block = student.blocks[1]
    block.forward = types.MethodType(lambda self, x: x, block)


CHANGES = {
    "an activation": (lambda m: setattr(m.blocks[0].mlp, "act", nn.ReLU()), "blocks.0.mlp.act is ReLU, not GELU"),
    "an eps": (lambda m: setattr(m.norm, "eps", 0.1), "norm.eps is 0.1, not 1e-06"),
    "a forward": (own_forward, "blocks.1 has a forward of its own, set after it was built"),
    "a hook": (lambda m: m.head.register_forward_hook(lambda part, args, x: 2 * x), "a hook of head changes its logits"),
    "fewer blocks": (lambda m: setattr(m, "blocks", m.blocks[:2]), "it has no blocks.2"),
    "a layer that is not quantized": (lambda m: setattr(m, "head", nn.Linear(32, 10)), "head is Linear, not QuantLinear"),
    "a weight": (lambda m: m.head.weight.add_(1e-4), "head.weight was changed since calibrate"),
    "a site": (lambda m: setattr(m.blocks[0].attn.qk, "renormalize", True), "blocks.0.attn.qk.renormalize is True, not False"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_student_that_load_would_not_return_is_refused(first, tiny_vit, images, change):
    folder, before = first
    student = calibrated(tiny_vit, images, "w8a8")
    make, message = CHANGES[change]
    make(student)
    with pytest.raises(
        ValueError, match=f"save: load would not return this VisionTransformer: {message}; a checkpoint"
    ) as caught:
        vitdfq.save(student, folder)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_a_hook_that_only_reads_is_no_obstacle(first, tiny_vit, images):
    student, seen = calibrated(tiny_vit, images, "w8a8"), []
    student.head.register_forward_hook(lambda part, args, x: seen.append(x.shape))
    assert torch.equal(vitdfq.load(vitdfq.save(student, first[0]))(images), student(images))


def test_the_global_random_state_stays(first, tiny_vit, images):
    student, state = calibrated(tiny_vit, images, "w8a8"), torch.get_rng_state()
    vitdfq.save(student, first[0])
    assert torch.equal(torch.get_rng_state(), state)
