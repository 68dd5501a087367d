"""What was measured with the names of the catalog, in one line each; the documentation has the same numbers as tables.

`measured.json` is the one place of numbers that belong to no recipe; those of a recipe stand in its header. After a change of it
`python tools/results.py` writes the tables of the documentation again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitdfq.common.files import read_json
from vitdfq.quantization import POLICIES
from vitdfq.recipe.find import header_line, packaged_file, packaged_recipes
from vitdfq.synthesis import METHODS
from vitdfq.synthesis.procedural import PROCEDURAL

FILE = Path(__file__).with_name("measured.json")
TEACHER = "(teacher)"  # the row of the float models in the table of methods


def measured_tables() -> dict[str, dict[str, Any]]:
    """Return name of a table -> {"date", "commit", "machine", "command", "columns", "rows": {name: cells}}; cells are texts."""
    return read_json(FILE)


def measured() -> dict[str, dict[str, str]]:
    """Return kind -> name -> measured numbers in one line, by the kinds and names of `catalog.entries`.

    Kinds and names of which nothing was measured are left out.
    """
    tables = measured_tables()
    methods = _methods(tables["methods"])
    recipes = {name: header_line(path, "Expected") for name, path in packaged_recipes().items()}
    return {
        "recipes": {name: line for name, line in recipes.items() if line},
        "methods": {name: line for name, line in methods.items() if name in METHODS},
        "procedural": {name: line for name, line in methods.items() if name in PROCEDURAL},
        "policies": _policies(),
        "bits": _bits(tables["bits"]),
    }


def _methods(table: Mapping[str, Any]) -> dict[str, str]:
    """Top-1 of the first model at both numbers of bits."""
    of_teacher, *_ = table["rows"][TEACHER]
    return {
        name: f"top-1 of zoo:deit {w4a4} % at W4A4, {w3a3} at W3A3; {of_teacher} in float"
        for name, (w4a4, w3a3, *_) in table["rows"].items()
    }


def _bits(table: Mapping[str, Any]) -> dict[str, str]:
    """Top-1 of every model of the zoo at each number of bits that was measured."""
    in_float, *bits = table["columns"]
    by_bits = {name: [cells[index] for cells in table["rows"].values()] for index, name in enumerate((in_float, *bits))}
    models = list(table["rows"])
    return {
        name.lower(): f"top-1 of {', '.join(map(' '.join, zip(models, by_bits[name], strict=True)))} %; "
        f"{', '.join(by_bits[in_float])} in float"
        for name in bits
    }


def _policies() -> dict[str, str]:
    """What the recipe of a paper expects, whose policy has its name."""
    files = {policy: packaged_file(f"paper_{policy}") for policy in POLICIES}
    return {policy: f"{header_line(file, 'Expected')}; paper_{policy}" for policy, file in files.items() if file}
