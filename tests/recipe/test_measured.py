"""Measured numbers: each belongs to a name of the catalog, and the documentation has them as they are in the package."""

from pathlib import Path

import pytest

from vitdfq.recipe.catalog import entries
from vitdfq.recipe.measured import TEACHER, measured, measured_tables
from vitdfq.synthesis import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.integration  # the zoo's descriptions are read from its files
def test_numbers_belong_to_names_of_the_catalog():
    catalog = entries()
    for kind, numbers in measured().items():
        assert numbers and set(numbers) <= set(catalog[kind]), kind
        assert all("\n" not in line for line in numbers.values())


def test_a_line_has_the_numbers_of_its_table():
    numbers = measured()
    assert numbers["methods"]["noise"] == "top-1 of zoo:deit 90.11 ± 0.17 % at W4A4, 87.92 ± 0.24 at W3A3; 91.26 in float"
    assert numbers["bits"]["w3a3"] == "top-1 of zoo:vit 88.97, zoo:deit 89.41, zoo:swin 91.12 %; 91.45, 91.06, 91.78 in float"
    assert numbers["policies"]["repq_vit"].endswith("; paper_repq_vit") and "89.25" in numbers["policies"]["repq_vit"]
    assert numbers["recipes"]["quickstart"].startswith("91.26 % float; W4A4 90.30 % on SARDFQ images")


def test_tables_are_whole():
    for name, table in measured_tables().items():
        assert all(table[key] for key in ("date", "commit", "machine", "command")), name
        assert {len(cells) for cells in table["rows"].values()} == {len(table["columns"])}, name
    rows = list(measured_tables()["methods"]["rows"])
    assert rows[0] == TEACHER and "real images" in rows[-1] and set(rows[1:-1]) <= set(METHODS)


def test_the_documentation_has_the_same_tables(monkeypatch):
    """`python tools/results.py` writes them."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from results import PAGES, measured_block

    for name, (page, first) in PAGES.items():
        block = (ROOT / page).read_text().partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
        assert block == measured_block(measured_tables()[name], first), f"{page}: run tools/results.py"
