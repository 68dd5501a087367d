"""The tables and charts of an analysis."""

import copy
import io

import pytest
from analysis_content import CONTENT, SCORES
from rich.console import Console

from vitdfq.reports.analysis_plots import analysis_charts
from vitdfq.reports.analysis_tables import is_better, markdown, rendered


def test_the_page_names_the_worst_first_and_every_table():
    page = markdown(CONTENT)
    assert page.index("| blocks.0.mlp.fc1 | weight 4, input 8 | 0.50000 |") < page.index("| head |")
    for heading in (
        "sensitivity of sites",
        "weight error against",
        "largest outliers, 10 of 12",
        "attention of",
        "bits by layer",
    ):
        assert f"## {heading}" in page
    assert "| site11 |" in page and "| site1 |" not in page
    assert "top-1" not in page and "average-bits 3.99 of 4" in page and "all at 3 bits" in page


def test_accuracy_has_columns_where_it_was_measured():
    content = copy.deepcopy(CONTENT)
    for row in content["sites"]:
        row["alone_measured"] = row["all_but_measured"] = {"top1": 91.25}
    assert "| top-1 % alone |" in markdown(content) and "| 91.25 |" in markdown(content)


def test_features_have_no_columns_of_classes():
    content = copy.deepcopy(CONTENT) | {"allocation": None, "attention": []}
    for row in content["sites"]:
        row["alone"] |= {"kl": None, "agreement": None}
        row["all_but"] |= {"kl": None, "agreement": None}
    page = markdown(content)
    assert "KL" not in page.split("\n\n")[2] and "SQNR dB alone" in page and "bits by layer" not in page


def test_the_terminal_shows_all_tables():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rendered(CONTENT))
    text = console.export_text()
    assert "blocks.0.mlp.fc1" in text and "largest outliers" in text and "bits by layer" in text


@pytest.mark.parametrize(
    ("mine", "other", "better"), [({"kl": 0.1}, {"kl": 0.2}, True), ({"kl": 0.2}, {"kl": 0.2}, False), ({}, None, True)]
)
def test_bits_by_layer_are_better_by_their_error_on_held_out_images(mine, other, better):
    uniform = None if other is None else {"scores": SCORES | other}
    assert is_better({"scores": SCORES | mine, "uniform": uniform}) == better


def test_features_are_better_by_their_ratio():
    scores = [{"kl": None, "sqnr_db": ratio, "agreement": None} for ratio in (21.0, 20.0)]
    assert is_better({"scores": scores[0], "uniform": {"scores": scores[1]}})
    assert not is_better({"scores": scores[1], "uniform": {"scores": scores[0]}})


def test_charts_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    for name, chart in analysis_charts(CONTENT).items():
        chart.save_png(tmp_path / name)
    for name in ("sites", "units", "outliers", "attention", "bits"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
