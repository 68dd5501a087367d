"""The page of an analysis."""

import pytest
from analysis_content import CONTENT
from html_page import parsed

from vitdfq.reports.analysis_page import write_analysis_page


def page_of(folder, content):
    write_analysis_page(folder, content)
    read = parsed((folder / "reports/index.html").read_text())
    assert read.problems == []
    return read


def test_every_table_has_its_chart(tmp_path):
    pytest.importorskip("matplotlib")
    page = page_of(tmp_path, CONTENT)
    sections = ["Sensitivity of sites", "Weights against activations", "Outliers", "Attention", "Bits by layer"]
    assert page.headings == ["Summary", *sections] and len(page.images) == 5
    assert "quantized alone, is blocks.0.mlp.fc1." in page.text and "all at 3 bits" in page.text


def test_what_was_not_measured_leaves_no_gap(tmp_path):
    page = page_of(tmp_path, CONTENT | {"attention": [], "allocation": None})
    assert page.headings[-1] == "Outliers"
