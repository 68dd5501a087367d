"""Tensors of PyTorch files: state dicts, training checkpoints and whole modules, and no code of the file's choice."""

import argparse
import os
from collections import OrderedDict, defaultdict
from enum import Enum
from pathlib import Path

import pytest
import torch
from torch import nn

from vitdfq.common.unpickle import _explain, read

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Precision(Enum):
    half = 16


class Settings(dict):
    """Stands for a trainer's own class."""


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.none = nn.Linear(3, 2), None
        self.register_buffer("table", torch.ones(3), persistent=False)
        self.register_buffer("count", torch.tensor(7))


class Runs:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def trained() -> dict:
    settings = Settings(lr=0.1)
    settings.extra = {"path": Path("x")}
    lists = defaultdict(list, {"a": [1]})
    return {"epoch": 3, "args": argparse.Namespace(lr=0.1), "hyper_parameters": settings, "p": Precision.half, "lists": lists}


def saved(content, tmp_path, **options) -> Path:
    torch.save(content, tmp_path / "x.pth", **options)
    return tmp_path / "x.pth"


def same(tensors) -> bool:
    return tensors.keys() == STATE.keys() and all(torch.equal(tensors[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict(tmp_path, zipped):
    tensors, about = read(saved(OrderedDict(STATE), tmp_path, _use_new_zipfile_serialization=zipped))
    assert same(tensors) and about == {}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "model_ema"])
def test_a_training_checkpoint(key, tmp_path):
    tensors, about = read(saved(trained() | {key: STATE, "arch": "vit_tiny_patch16_224"}, tmp_path))
    assert same(tensors) and about == {"key": key, "architecture": "vit_tiny_patch16_224"}


def test_averaged_weights_first_and_another_entry_by_name(tmp_path):
    other = {name: value + 1 for name, value in STATE.items()}
    path = saved(trained() | {"state_dict": other, "state_dict_ema": STATE, "optimizer": {"state": {}}}, tmp_path)
    assert same(read(path)[0])
    assert torch.equal(read(path, "state_dict")[0]["a.bias"], torch.ones(2))
    with pytest.raises(ValueError, match=r"no state dict under 'optimizer'; choices: state_dict, state_dict_ema$"):
        read(path, "optimizer")


def test_a_whole_module(tmp_path):
    network = Network()
    tensors, _ = read(saved({"model": network}, tmp_path))
    expected = network.state_dict()
    assert tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_no_code_is_run(function, tmp_path):
    trap = tmp_path / "trap"
    code = f"touch {trap}" if function is os.system else f"open({str(trap)!r}, 'w')"
    try:
        read(saved({"state_dict": STATE, "x": Runs(function, code)}, tmp_path))
    except Exception as error:
        reason = _explain(error)
        assert "posix" in reason and "weights_only" not in reason and "\n" not in reason
    assert not trap.exists()


def test_what_is_no_state_dict_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="holds no state dict"):
        read(saved({"epoch": 3}, tmp_path))
    (tmp_path / "x.pth").write_bytes(b"hello")
    with pytest.raises(Exception) as caught:
        read(tmp_path / "x.pth")
    assert "\n" not in _explain(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04 and no end", "its end is missing"),
    ],
)
def test_what_is_no_checkpoint_is_named(content, message, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x.pth")
