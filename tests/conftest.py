"""Fixtures for every test."""

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: the default suite has no network
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, a process a core

import pytest
import torch
from tiny import TINY, make_tiny

from vitdfq.models import image_size


@pytest.fixture(params=sorted(TINY))
def teacher(request) -> torch.nn.Module:
    return make_tiny(request.param)


@pytest.fixture
def tiny_vit() -> torch.nn.Module:
    return make_tiny("vit")


@pytest.fixture
def images(request) -> torch.Tensor:
    """Eight images (8, 3, R, R) that fit the test's teacher."""
    model = request.getfixturevalue("teacher" if "teacher" in request.fixturenames else "tiny_vit")
    return torch.randn(8, 3, *image_size(model), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    """Painting takes milliseconds an image: choose from pools of 64, not of 512."""
    monkeypatch.setattr("vitdfq.synthesis.image_selection.farthest_point.BLOCK", 4)


@pytest.fixture(autouse=True)
def library_logger():
    """The library's messages reach `caplog`; the command line's set-up of the logger ends with the test."""
    logger = logging.getLogger("vitdfq")
    before = list(logger.handlers), logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
