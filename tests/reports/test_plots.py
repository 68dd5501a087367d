"""Plots, with and without matplotlib."""

import sys

import pytest
import torch

from vitdfq.reports.plots import attention_chart


@pytest.fixture
def attention() -> tuple[torch.Tensor, torch.Tensor]:
    """(pixels, maps) of two images and three heads."""
    return torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.rand(2, 3, 4, 4)


def test_a_png_is_written(attention, tmp_path):
    attention_chart(*attention, None).save_png(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_no_file_is_written_and_a_message_gives_the_reason(attention, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    attention_chart(*attention, None).save_png(tmp_path / "attention.png")
    assert list(tmp_path.iterdir()) == []
    assert "attention.png left out: pip install 'vitdfq[report]'" in caplog.text
