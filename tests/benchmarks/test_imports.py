"""Every benchmark can be imported: a name that the package moved or dropped is missed here, not by the next who measures."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
OPTIONAL = ("matplotlib", "nncf", "onnx", "onnxruntime", "onnxscript", "openvino")  # of the extras `report` and `runtimes`

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_it_can_be_imported(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)  # as Python does for a script
    try:
        names = runpy.run_path(str(script), run_name="imported")
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    assert callable(names["main"]) and names["__doc__"]
