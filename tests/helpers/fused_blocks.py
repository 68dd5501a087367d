"""Fused blocks of integer students for tests: with every kind of kernels, and site by site."""

import os
import shutil
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn

from vitdfq.quantization.integer.fused import FusedBlock, block, library


def require_kernels() -> None:
    """Skip where there can be none. Sources that do not compile are an error."""
    if not library.has_vectors():
        pytest.skip("no vectors that the kernels know")
    if shutil.which((os.environ.get("CC", "").split() or ["cc"])[0]) is None:
        pytest.skip("no C compiler")
    assert library.library() is not None


def each_target(monkeypatch) -> Iterator[str]:
    """Let blocks run by every kind of kernels that this processor has the instructions for, its own first."""
    names = list(library.TARGETS)
    for name in names[names.index(torch.backends.cpu.get_cpu_capability()) :]:
        with monkeypatch.context() as patch:
            patch.setattr(block, "library", partial(library.library_for, name))
            yield name


def blocks_of(model: nn.Module) -> list[FusedBlock]:
    return [part for part in model.modules() if isinstance(part, FusedBlock)]


def site_by_site(monkeypatch, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(block, "library", lambda: None)
        return module(x)
