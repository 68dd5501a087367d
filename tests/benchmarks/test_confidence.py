"""`benchmarks/confidence.py`: a line through students of several models, and intervals that hold for one that was left out."""

import random
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/confidence.py"

pytestmark = pytest.mark.integration


@pytest.fixture
def names(monkeypatch) -> dict:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return runpy.run_path(str(SCRIPT), run_name="imported")


def rows(spread: float, offsets: dict[str, float] | None = None) -> list[dict]:
    """Students whose disagreement has the log-odds of `crossed`, less 1, and an offset of their model, up to `spread` away."""
    from math import exp

    numbers, result = random.Random(0), []
    for name in ("a", "b", "c", "d", "e"):
        for step in range(12):
            measures = [-4 + 0.3 * step, numbers.uniform(-4, -2)]
            center = measures[0] - 1 + numbers.uniform(-spread, spread) + (offsets or {}).get(name, 0.0)
            truth = {"agreement": 100 - 100 / (1 + exp(-center)), "top1_loss": 50 / (1 + exp(-center)), "num_images": 10**6}
            result.append({"model": name, "bits": "w4a4", "seed": step, "measures": measures} | truth)
    return result


def test_a_line_is_found_again(names):
    line = names["fit"](rows(spread=0.0), 0.0).disagreement
    found = [line.crossed, line.lost, line.intercept, line.low, line.high]
    assert found == pytest.approx([1.0, 0.0, -1.0, 0.0, 0.0], abs=2e-3)


def test_an_interval_is_as_wide_as_models_differ(names):
    alike, unlike = rows(spread=0.1), rows(spread=0.1, offsets={"a": 1.0, "b": -1.0})
    widths = [line.high - line.low for line in (names["calibrate"](those)[0].disagreement for those in (alike, unlike))]
    assert widths[0] < 0.3 and widths[1] > 1.8


def test_the_report_counts_the_truths_of_models_that_were_left_out(names):
    model, report = names["calibrate"](rows(spread=0.5))
    assert report[2].startswith("| a | 0 | w4a4 | ") and len(report) == 2 + 60 + 3
    assert names["held"](rows(spread=0.5), lambda row: model)["agreement"] >= names["LEVEL"]
    assert names["held"](rows(spread=0.1, offsets={"a": 3.0}), lambda row: model)["agreement"] == pytest.approx(0.8)
