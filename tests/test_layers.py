"""Imports point one way, and each third-party package has one home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vitdfq"
LAYERS = [  # lowest first; a module may import from its own layer and those below
    {"pick", "errors", "files", "fitting", "precision", "processes", "progress", "shelf", "tensors", "trackers"},
    {"models", "data", "hub", "hub_access", "publish"},
    {"preparation", "quantization", "synthesis", "evaluation"},
    {"calibration"},
    {"recipe", "recipe_check"},
    {"checkpoint", "packed", "report", "plots", "changes", "stages", "tables", "onnx"},
    {"bench", "pipeline", "plan", "forecast", "footprint", "probe", "names", "compare"},
    {"cli", "__main__"},
]
HOMES = {
    "typer": {"cli"},
    "rich": {"bench", "progress", "report", "plan", "cli"},
    "pydantic": {"recipe", "recipe_check"},
    "yaml": {"recipe", "recipe_check"},
    "datasets": {"data"},
    "accelerate": {"processes", "fitting", "trackers"},
    "huggingface_hub": {"hub", "hub_access", "publish", "models", "data"},
    "filelock": {"stages"},
    "safetensors": {"tensors"},
    "matplotlib": {"plots"},
    "onnx": {"onnx"},
    "onnxruntime": {"onnx"},
    "onnxscript": {"onnx"},
}
FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "vitdfq" else [node.module]
    return names


def level(name: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    for name in imports(path):
        if name.startswith("vitdfq.") and name != "vitdfq.__version__":
            assert level(name.split(".")[1]) <= level(part(path)), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_third_party_package_has_one_home(path):
    for name in imports(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or part(path) in home, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 300


def test_import_is_cheap():
    heavy = "torch, timm, datasets, accelerate, pydantic, rich, huggingface_hub, onnx, onnxruntime"
    code = f"import sys, vitdfq, vitdfq.cli; print(set('{heavy}'.split(', ')) & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() in ("set()", "{'rich'}")  # typer brings rich


def test_public_names_exist():
    import vitdfq

    for name in vitdfq.__all__:
        assert getattr(vitdfq, name) is not None
        assert name in vitdfq.__dict__  # cached: a submodule of the same name cannot take its place
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vitdfq.nothing
