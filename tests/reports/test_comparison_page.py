"""The page of a comparison of recipes."""

import pytest
from html_page import parsed
from PIL import Image

from vitdfq.reports import tables
from vitdfq.reports.comparison_page import write_comparison_page
from vitdfq.reports.plots import comparison_chart


def content(*kls: tuple[float, float], failed: bool = False) -> dict:
    rows = []
    for index, values in enumerate(kls):
        cells = [dict.fromkeys(tables.COLUMNS) | {"kl": value, "agreement": 90.0} for value in values]
        about = {"title": f"method{index}", "method": "noise", "uses_data": False, "pictures": ["grids/a.png", "attention/a.png"]}
        rows.append(about | tables.summarize(cells))
    if failed:
        about = {"title": "broken", "method": "psaq", "uses_data": False, "pictures": []}
        rows.append(about | tables.summarize([{"error": "<b>nan</b>"}]))
    teacher = {"name": "zoo:vit", "top1": 91.0, "num_images": 64}
    return {"vitdfq": "0.1.0", "device": "cpu", "bits": "w4a4", "seeds": [0, 1], "teacher": teacher, "rows": rows}


def page_of(folder, content):
    for name in ("grids", "attention"):
        (folder / name).mkdir()
        Image.new("RGB", (1500, 300)).save(folder / name / "a.png")
    chart = comparison_chart(content["rows"], {"kl": "KL"}, "title", content["teacher"])
    write_comparison_page(folder, content, chart, {"small": "name: small\n"})
    read = parsed((folder / "reports/index.html").read_text())
    assert read.problems == [] and all(image["src"].startswith("data:image/") for image in read.images)
    return read


def test_every_section_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    page = page_of(tmp_path, content((0.1, 0.11), (0.3, 0.31), failed=True))
    images = ["Images of method0", "Images of method1"]
    assert page.headings == ["Summary", "Results", "Charts", *images, "Recipes", "Make it again"]
    assert "method0 images (0.1050 nats), before that of method1 images (0.3050)." in page.text
    assert "broken failed: <b>nan</b>" in page.text and "vitdfq compare small.yaml" in page.text
    assert len(page.images) == 5


def test_a_difference_that_may_be_chance_is_called_so(tmp_path):
    assert "The difference is within the deviation over 2 seeds." in page_of(tmp_path, content((0.1, 0.3), (0.2, 0.3))).text


def test_one_seed_shows_no_spread(tmp_path):
    assert "One seed each: their difference may be chance." in page_of(tmp_path, content((0.1,), (0.2,))).text
