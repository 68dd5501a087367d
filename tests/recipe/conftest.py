"""A recipe file."""

from pathlib import Path

import pytest
from recipe_text import RECIPE


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path
