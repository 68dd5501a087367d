"""A page is one file: well-formed, escaped, without a script and without a link to another file."""

import pytest
from html_page import parsed

from vitdfq.reports import charts
from vitdfq.reports.charts import DARK, Chart
from vitdfq.reports.page import Code, Figure, Gallery, Grid, Page, Section, Text, Tiles, chart_figure

HOSTILE = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }} <img src=http://example.com/x.png>"
PIXEL = "data:image/png;base64,AAAA"


def chart() -> Chart:
    return Chart((3, 2), lambda figure: figure.subplots().plot([0, 1], [1, 0], color=DARK), "A line.")


def test_text_of_every_block_is_escaped_and_nothing_is_asked_for():
    page = Page(HOSTILE, HOSTILE)
    page.add(HOSTILE, Text([HOSTILE]), Tiles([(HOSTILE, HOSTILE, HOSTILE)]), Code(HOSTILE), folded=True)
    page.add("Tables", Grid([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], notes=[HOSTILE], strong=frozenset({0})))
    page.add("Images", Gallery([(PIXEL, [HOSTILE])]), Figure(PIXEL, HOSTILE, 300))
    read = parsed(page.render())
    assert read.problems == []
    assert read.headings == [HOSTILE, "Tables", "Images"]
    assert read.text.count(HOSTILE) == 17  # one of them is the title of the window, one the link in the list of sections
    assert [image["src"] for image in read.images] == [PIXEL, PIXEL]
    assert all(image["alt"] == HOSTILE for image in read.images)


def test_sections_without_a_block_are_left_out():
    page = Page("title", "subtitle")
    page.add("Nothing")
    page.add("Unknown", None)
    page.add("Known", None, Text(["words"]))
    assert [section.title for section in page.sections] == ["Known"]
    assert parsed(page.render()).headings == ["Known"]


def test_a_section_has_an_address():
    assert Section("Size, time & memory").anchor == "size-time-memory"


def test_a_page_is_written_whole(tmp_path):
    Page("title", "subtitle").write(tmp_path / "reports/index.html")
    assert parsed((tmp_path / "reports/index.html").read_text()).problems == []
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["index.html"]


def test_a_chart_follows_the_color_scheme_and_is_the_same_each_time():
    pytest.importorskip("matplotlib")
    figure = chart_figure(chart())
    assert figure.image.startswith("data:image/svg+xml;base64,") and figure.caption == "A line."
    assert figure == chart_figure(chart())
    svg = charts._with_color_schemes(f'<svg><defs></defs><path style="stroke: {DARK}"/></svg>')
    assert "stroke: var(--c2)" in svg and f"--c2:{DARK};" in svg and "prefers-color-scheme:dark" in svg


def test_without_matplotlib_there_is_no_figure(monkeypatch):
    monkeypatch.setattr("vitdfq.reports.charts.has_matplotlib", lambda: False)
    assert chart_figure(chart()) is None
