"""The pages in headless Chromium: no error, no request, nothing wider than the window. Skipped where there is no browser."""

from pathlib import Path

import browser
import pytest
from analysis_content import CONTENT
from run_folder import unevaluated, write_run

from vitdfq.reports.analysis_page import write_analysis_page
from vitdfq.reports.page import Figure, Grid, Page, Text
from vitdfq.reports.run_page import write_run_page
from vitdfq.workflow.compare_runs import compare_runs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium on this machine"),
]
WIDTHS, SCHEMES = (390, 1280), ("light", "dark")


@pytest.fixture(scope="module")
def tab():
    with browser.opened(browser.find_browser()) as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    long = "a_name_without_any_space_" * 5
    runs = [write_run(folder / "run"), write_run(folder / "unevaluated", unevaluated(), name=long), write_run(folder / long)]
    for run in runs[:2]:
        write_run_page(run)
    write_analysis_page(folder / "analysis", CONTENT)
    compare_runs(runs, out=folder / "comparison")
    return {name: folder / name / "reports/index.html" for name in ("run", "unevaluated", "analysis", "comparison")}


def background(tab) -> str:
    return tab.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("name", ["run", "unevaluated", "analysis", "comparison"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_is_quiet_and_fits(tab, pages, name, width):
    backgrounds = []
    for scheme in SCHEMES:
        tab.open(pages[name], width, scheme)
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert tab.trouble() == [] and tab.requests() == [] and tab.overflowing() == []
        assert tab.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
        backgrounds.append(background(tab))
    assert backgrounds[0] != backgrounds[1]


SCROLLED = """(() => {
    const part = [...document.querySelectorAll('.scroll, pre, nav')].filter(part => part.offsetParent)[%d]
    if (!part) return null
    part.scrollLeft = %d
    const box = part.getBoundingClientRect(), style = getComputedStyle(part)
    return {
        html: part.outerHTML.slice(0, 60), hidden: part.scrollWidth - part.clientWidth, below: style.backgroundColor,
        left: box.left + window.scrollX + parseFloat(style.borderLeftWidth), top: box.top + window.scrollY + 10,
        width: part.clientWidth, height: part.clientHeight - 20,
    }
})()"""


def has_shadow(tab, part: dict, side: str) -> bool:
    """Whether most of an edge, but for its corners, has another color than what is below."""
    x = part["left"] + (part["width"] - 1 if side == "right" else 0)
    edge = tab.picture(x, part["top"], 1, part["height"])
    _, color = max(edge.getcolors())
    return f"rgb{color}" != part["below"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["run", "analysis", "comparison"])
def test_what_scrolls_sideways_has_a_shadow_where_something_is_hidden(tab, pages, name, scheme):
    tab.open(pages[name], 390, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    count = wide = 0
    while (part := tab.evaluate(SCROLLED % (count, 0))) is not None:
        is_wide = part["hidden"] > 16  # a narrower rest is below the cover
        if is_wide or part["hidden"] == 0:
            assert not has_shadow(tab, part, "left") and has_shadow(tab, part, "right") == is_wide, part
            part = tab.evaluate(SCROLLED % (count, 10_000))
            assert has_shadow(tab, part, "left") == is_wide and not has_shadow(tab, part, "right"), part
        count, wide = count + 1, wide + is_wide
    assert wide >= 2


@pytest.mark.parametrize("name", ["run", "analysis"])
def test_the_navigation_is_one_row_on_a_phone(tab, pages, name):
    tab.open(pages[name], 390, "light")
    assert tab.evaluate("new Set([...document.querySelectorAll('nav a')].map(link => link.offsetTop)).size") == 1
    assert tab.evaluate("document.querySelector('nav').scrollWidth > document.querySelector('nav').clientWidth")


def test_faults_are_seen(tab, tmp_path):
    """The checks above, on pages that must not pass them."""
    page = Page("title", "subtitle")
    page.add("Wide", Text(["x"]), Grid(["a"], [["b"]]), Figure("http://127.0.0.1:1/x.png", "a picture from elsewhere"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    text = page.render()
    assert policy in text
    file = tmp_path / "page.html"
    file.write_text(text)
    tab.open(file, 390, "light")
    assert "Content Security Policy" in str(tab.trouble())  # which refuses what the page asks for
    file.write_text(text.replace(policy, "").replace("<main>", '<main><div style="width: 500px">wide</div>'))
    tab.open(file, 390, "light")
    assert tab.requests() == ["http://127.0.0.1:1/x.png"]
    assert "wide" in str(tab.overflowing())
