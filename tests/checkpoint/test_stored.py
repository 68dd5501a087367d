"""Checkpoints that earlier versions wrote (tools/make_checkpoint_fixture.py) load for ever, and give the logits they gave."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny

import vitdfq
from vitdfq.checkpoint.formats_1_2 import may_lack
from vitdfq.checkpoint.save_load import FORMAT_VERSION

STORED = Path(__file__).with_name("stored")


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_an_older_checkpoint_gives_the_logits_it_gave(version):
    folder = STORED / f"v{version}"
    expected = load_file(folder / "expected.safetensors")
    logits = vitdfq.load(folder)(expected["images"])
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-5)
    assert torch.equal(vitdfq.load(folder)(expected["images"]), logits)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_an_older_checkpoint_saved_again_is_of_today(version, tmp_path):
    student = vitdfq.load(STORED / f"v{version}")
    again = vitdfq.load(vitdfq.save(student, tmp_path))
    images = load_file(STORED / f"v{version}" / "expected.safetensors")["images"]
    assert torch.equal(again(images), student(images))
    assert vitdfq.checkpoint.save_load.describe(tmp_path)["format"] == FORMAT_VERSION


def test_stored_checkpoints_stay_small():
    assert max(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 200_000


def test_what_older_formats_knew_nothing_of_may_lack():
    swin = make_tiny("swin")
    found = may_lack(vitdfq.quantize(swin), swin)
    assert "layers.1.downsample.reduction.bias" in found and "layers.0.blocks.0.attn.qkv.input_shift" in found
    assert "layers.0.blocks.0.attn.qkv.bias" not in found  # timm's own
