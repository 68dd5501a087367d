import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import vitdfq
from vitdfq.checkpoint import validation
from vitdfq.common.errors import InputError


@pytest.fixture
def student(teacher, images):
    prepared = vitdfq.prepare(teacher)
    student = vitdfq.quantize(prepared, bits="w4a4")
    return vitdfq.calibrate(student, prepared, images, steps=["observe", {"reconstruct": {"iterations": 2}}])


@pytest.fixture
def vit_folder(tiny_vit, images, tmp_path):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    return vitdfq.save(student, tmp_path / "vit")


def test_bit_equal_logits_after_loading(student, images, tmp_path):
    loaded = vitdfq.load(vitdfq.save(student, tmp_path / "a"))
    assert torch.equal(loaded(images), student(images))
    assert loaded.vitdfq == student.vitdfq
    vitdfq.save(loaded, tmp_path / "b")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_an_export_of_the_student_before_does_not_stay(student, tmp_path):
    export, other = tmp_path / "onnx/model.onnx", tmp_path / "notes.txt"
    export.parent.mkdir()
    for file in (export, other):
        file.write_text("of another student")
    vitdfq.save(student, tmp_path)
    assert not export.exists() and other.exists()


@pytest.mark.integration
def test_bit_equal_logits_in_a_new_process(tiny_vit, images, vit_folder, tmp_path):
    code = (
        "import sys, torch, vitdfq; from safetensors.torch import load_file, save_file; "
        "x = load_file(sys.argv[2])['x']; save_file({'y': vitdfq.load(sys.argv[1])(x)}, sys.argv[3])"
    )
    save_file({"x": images}, tmp_path / "x.safetensors")
    out = tmp_path / "y.safetensors"
    subprocess.run([sys.executable, "-c", code, vit_folder, tmp_path / "x.safetensors", out], check=True)
    assert torch.equal(load_file(out)["y"], vitdfq.load(vit_folder)(images))


def test_uncalibrated_student_is_refused(tiny_vit, tmp_path):
    with pytest.raises(ValueError, match="calibrate the student"):
        vitdfq.save(vitdfq.quantize(tiny_vit), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"what quantize returned"):
        vitdfq.save(tiny_vit, tmp_path)


def damage(folder, how):
    weights, config = folder / "model.safetensors", folder / "config.json"
    content = json.loads(config.read_text())
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "pickle":
        torch.save({}, weights)
    elif how == "missing weights":
        weights.unlink()
    elif how == "missing tensor":
        state = load_file(weights)
        state.pop("blocks.0.mlp.fc1.weight_packed")
        save_file(state, weights)
    elif how == "no config":
        config.unlink()
    elif how == "not json":
        config.write_text("{")
    elif how == "newer":
        content["quantization_config"]["version"] = 99
        config.write_text(json.dumps(content))
    elif how == "plain timm":
        config.write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "damaged or truncated"),
        ("pickle", "is a pickle, not safetensors"),
        ("missing weights", "no such file"),
        ("missing tensor", "do not fit"),
        ("no config", "is .* a vitdfq checkpoint"),
        ("not json", "cannot be read as JSON"),
        ("newer", "newer than this vitdfq"),
        ("plain timm", "not a vitdfq checkpoint"),
    ],
)
def test_damaged_checkpoints_are_named(vit_folder, how, message):
    damage(vit_folder, how)
    with pytest.raises(InputError, match=message) as caught:
        vitdfq.load(vit_folder)
    assert "\n" not in str(caught.value) and str(vit_folder) in str(caught.value)


FULL_DISK = """
import resource, signal, sys, vitdfq
student = vitdfq.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk: the system refuses to write on
try:
    vitdfq.save(student, sys.argv[1])
except OSError as error:
    print(error.errno, error.filename, error.strerror, sep="\\n")
"""


@pytest.mark.integration
def test_a_failed_write_leaves_the_old_file_and_names_it(vit_folder):
    before = (vit_folder / "model.safetensors").read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, vit_folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(errno.EFBIG), str(vit_folder / "model.safetensors"), os.strerror(errno.EFBIG)]
    assert (vit_folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in vit_folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained_filter_fn", "cache_dir"])
def test_no_argument_leads_to_another_file(vit_folder, tmp_path, key):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    config = json.loads((vit_folder / "config.json").read_text())
    config["vitdfq"]["model"]["model_args"][key] = str(tmp_path / "trap.pth")
    (vit_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"{key} is no argument that shapes a model"):
        vitdfq.load(vit_folder)
    assert not marker.exists()


def test_that_a_model_runs_is_tried_once(tiny_vit, images, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(validation, "require_runs", lambda model: tried.append(type(model).__name__))
    monkeypatch.setattr(validation, "_known_to_run", set())
    student = vitdfq.quantize(tiny_vit, bits="w8a8")
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe"])
    vitdfq.load(vitdfq.save(student, tmp_path))
    assert tried == ["VisionTransformer"]
