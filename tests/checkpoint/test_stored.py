"""Checkpoints that earlier versions wrote (tools/make_checkpoint_fixture.py) load for ever, and give the logits they gave."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny

import vitdfq
from vitdfq.checkpoint.formats_1_2 import may_lack
from vitdfq.checkpoint.save_load import FORMAT_VERSION
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.twin import TwinSoftmax

STORED = Path(__file__).with_name("stored")


EARLIER = [f"v{version}" for version in range(1, FORMAT_VERSION)] + ["v4_vitdfq_dynamic", "v5_vitdfq_dynamic", "v5_w6a6"]
TODAYS = [f"v{FORMAT_VERSION}", f"v{FORMAT_VERSION}_vitdfq_dynamic", f"v{FORMAT_VERSION}_w6a6"]


@pytest.mark.parametrize("version", EARLIER + TODAYS)
def test_an_older_checkpoint_gives_the_logits_it_gave(version):
    folder = STORED / version
    expected = load_file(folder / "expected.safetensors")
    logits = vitdfq.load(folder)(expected["images"])
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-5)
    assert torch.equal(vitdfq.load(folder)(expected["images"]), logits)


@pytest.mark.parametrize("version", EARLIER)
def test_an_older_checkpoint_saved_again_is_of_today(version, tmp_path):
    student = vitdfq.load(STORED / version)
    again = vitdfq.load(vitdfq.save(student, tmp_path))
    images = load_file(STORED / version / "expected.safetensors")["images"]
    assert torch.equal(again(images), student(images))
    assert vitdfq.checkpoint.save_load.describe(tmp_path)["format"] == FORMAT_VERSION


@pytest.mark.parametrize("version", [1, 2, 3])  # it was renamed before format 4
def test_the_old_name_of_an_observer_is_read(version, tmp_path):
    folder = Path(shutil.copytree(STORED / f"v{version}", tmp_path / "old"))
    config = json.loads((folder / "config.json").read_text())
    section = config["vitdfq"]["quantize"]
    section["activation"] = {"observer": "hessian"}
    section["overrides"]["blocks.0.mlp.fc1"]["weight"]["observer"] = "hessian"
    (folder / "config.json").write_text(json.dumps(config))
    student, before = vitdfq.load(folder), vitdfq.load(STORED / f"v{version}")
    images = load_file(folder / "expected.safetensors")["images"]
    assert torch.equal(student(images), before(images))
    assert student.blocks[0].mlp.fc1.weight_quantizer.observer == "output_error" == student.head.input_quantizer.observer
    assert vitdfq.checkpoint.save_load.describe(folder)["bits"] == "w4a4"
    vitdfq.save(student, tmp_path / "new")
    assert "hessian" not in (tmp_path / "new/config.json").read_text() and "hessian" in json.dumps(config)


def test_dynamic_students_of_earlier_formats_cover_whole_ranges_and_have_static_operands():
    earlier, today = (vitdfq.load(STORED / name).blocks[0] for name in ("v4_vitdfq_dynamic", TODAYS[1]))
    assert earlier.mlp.fc1.input_quantizer.clip == 1 > today.mlp.fc1.input_quantizer.clip
    assert not earlier.attn.qk.left_quantizer.is_dynamic and today.attn.qk.left_quantizer.is_dynamic


def test_students_of_six_bits_of_earlier_formats_have_a_logarithmic_softmax():
    earlier, today = (vitdfq.load(STORED / name).blocks[0].attn.av.left_quantizer for name in ("v5_w6a6", TODAYS[2]))
    assert isinstance(earlier, Logarithmic) and isinstance(today, TwinSoftmax)


@pytest.mark.integration
def test_loading_a_student_imports_neither_synthesis_nor_calibration_nor_data():
    rooms = ("synthesis", "calibration", "data", "recipe", "hub", "workflow")
    code = f"import sys, vitdfq; vitdfq.load(sys.argv[1]); print([room for room in {rooms} if f'vitdfq.{{room}}' in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, STORED / f"v{FORMAT_VERSION}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stored_checkpoints_stay_small():
    assert max(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 200_000


def test_tensors_that_older_formats_may_lack():
    swin = make_tiny("swin")
    found = may_lack(vitdfq.quantize(swin), swin)
    assert "layers.1.downsample.reduction.bias" in found and "layers.0.blocks.0.attn.qkv.input_shift" in found
    assert "layers.0.blocks.0.attn.qkv.bias" not in found  # timm's own
