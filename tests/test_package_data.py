"""What a wheel holds beside Python: files that no pattern of pyproject.toml names exist in a checkout alone."""

import tomllib
from pathlib import Path

import vitdfq

PACKAGE = Path(vitdfq.__file__).parent
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_every_file_is_packaged():
    patterns = tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]["package-data"]["vitdfq"]
    named = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert any(path.suffix == ".c" for path in others) and any(path.suffix == ".h" for path in others)
    assert not others - named
