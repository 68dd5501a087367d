"""The table of `vitdfq compare` over finished runs: as markdown, as CSV, and as a page with charts.

Runs that were measured on different images make groups: a rank counts inside its group alone.
"""

import csv
import io
from pathlib import Path
from typing import Any

from vitdfq.reports.charts import Chart
from vitdfq.reports.page import FILE, NO_CHARTS, Code, Grid, Page, Text, chart_figure
from vitdfq.reports.plots import scatter_chart
from vitdfq.reports.tables import format_number, markdown_table

NAMES = {"rank": "rank", "run": "run", "model": "model", "bits": "bits", "images": "calibrated on"}
NUMBERS = {  # key -> (heading, digits); a column without any value is left out
    "kl": ("KL", 5),
    "agreement": ("agreement %", 2),
    "cosine": ("cosine", 4),
    "relative_error": ("relative error", 4),
    "top1": ("top-1 %", 2),
    "teacher_top1": ("teacher top-1 %", 2),
    "num_images": ("test images", 0),
    "megabytes": ("MB", 2),
    "seconds": ("seconds", 1),
    "unseen_kl": ("KL, no data", 5),
    "unseen_agreement": ("agreement %, no data", 1),
    "unseen_cosine": ("cosine, no data", 4),
    "expected_agreement": ("expected agreement %", 1),
    "expected_agreement_low": ("at least", 1),
    "expected_loss": ("expected loss of top-1", 1),
    "expected_loss_high": ("at most", 1),
}
RANKED_BY = ("kl", "cosine", "unseen_kl", "unseen_cosine")
COSTS = {"megabytes": "checkpoint, MB", "seconds": "seconds of synthesis and calibration"}
SCORES = {"kl": "KL (nats)", "cosine": "cosine", "top1": "top-1 %", "agreement": "agreement %"}
SCORES_WITHOUT_DATA = {"unseen_kl": "KL without data (nats)", "unseen_cosine": "cosine without data"}
SORTED = "sorted by KL, the divergence from the teacher's to the student's class probabilities in nats, then by agreement"
BY_COSINE = "models that give features are sorted by cosine"
NO_DATA = "no data: on synthetic images (dead leaves) of each run's own seed, which its calibration never saw"
EXPECTED = "expected: of real images, estimated from synthetic images alone; at least, at most: the ends of 90 % intervals"
COST = "MB: the packed checkpoint; seconds: of synthesis and calibration, on the machine of each run"
GROUPS = "These runs were not measured on the same images: a rank counts among the runs of its group, not across groups."
TEACHERS = "The runs have different teachers: KL and agreement compare each student with its own."
NOT_EVALUATED = "not evaluated: ranked by KL on synthetic images"


def title(content: dict[str, Any]) -> str:
    """The title of the table."""
    return f"{len(content['runs'])} runs"


def columns_of(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The columns of numbers that any run has."""
    return {key: column for key, column in NUMBERS.items() if any(row[key] is not None for row in content["runs"])}


def text_rows(content: dict[str, Any]) -> list[list[str]]:
    """The cells as text: headings, then the runs in their order; the group of each, if there are several."""
    columns = columns_of(content)
    grouped = len(content["groups"]) > 1
    rows = [[*NAMES.values(), *(heading for heading, _ in columns.values())]]
    for row in content["runs"]:
        rank = f"{row['group']}.{row['rank']}" if grouped else str(row["rank"])
        names = [rank, *(row[key] for key in NAMES if key != "rank")]
        rows.append([*names, *(format_number(row[key], None, digits) for key, (_, digits) in columns.items())])
    return rows


def notes(content: dict[str, Any]) -> list[str]:
    """Lines below the table: how it is sorted, and what must not be compared."""
    columns, groups, runs = columns_of(content), content["groups"], content["runs"]
    lines = []
    if len(groups) > 1:
        lines += [GROUPS, *(f"group {number}: {group}" for number, group in enumerate(groups, start=1))]
    elif groups:
        lines.append(f"measured on {groups[0]}" if runs[0]["num_images"] is not None else groups[0])
    if len({row["model"] for row in runs}) > 1:
        lines.append(TEACHERS)
    if "kl" in columns or "unseen_kl" in columns:
        lines.append(SORTED)
    if "cosine" in columns or "unseen_cosine" in columns:
        lines.append(BY_COSINE)
    lines += [NO_DATA] if any(key.startswith("unseen") for key in columns) else []
    lines += [EXPECTED] if "expected_agreement" in columns else []
    return [*lines, COST]


def markdown(content: dict[str, Any]) -> str:
    """The page compare.md."""
    headings, *rows = text_rows(content)
    table = markdown_table(headings, [[cell.replace("|", "\\|") for cell in row] for row in rows], len(NAMES))
    return f"# {title(content)}\n\n{table}\n\n" + "\n".join(f"- {line}" for line in notes(content)) + "\n"


def comma_separated(content: dict[str, Any]) -> str:
    """The file compare.csv: all columns, numbers not rounded, each run with its group."""
    text = io.StringIO()
    keys = ["group", *NAMES, *NUMBERS, "measured_on", "folder"]
    writer = csv.DictWriter(text, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["runs"])
    return text.getvalue()


def scatter_charts(content: dict[str, Any]) -> list[Chart]:
    """Each score against size and time, a chart for each that two runs of a group have."""
    charts = []
    for number, group in enumerate(content["groups"], start=1):
        rows = [row for row in content["runs"] if row["group"] == number]
        scores = SCORES_WITHOUT_DATA if rows[0]["num_images"] is None else SCORES
        for score, title in scores.items():
            known = [row for row in rows if row[score] is not None]
            if len(known) > 1:
                panels = {name: {row["run"]: (row[cost], row[score]) for row in known} for cost, name in COSTS.items()}
                charts.append(scatter_chart(panels, title, f"{title}: {group}."))
    return charts


def write_runs_page(folder: Path, content: dict[str, Any]) -> None:
    """Write the page of a comparison of runs, reports/index.html.

    Args:
        folder: of the comparison.
        content: of compare.json.
    """
    headings, *rows = text_rows(content)
    page = Page(f"Comparison of {title(content)}", f"vitdfq {content['vitdfq']}")
    page.add("Summary", Text(_summary(content)))
    page.add("Results", Grid(headings, rows, len(NAMES), notes=notes(content)))
    charts = scatter_charts(content)
    figures = [chart_figure(chart) for chart in charts]
    page.add("Charts", *(figures if None not in figures else [Text([NO_CHARTS])]))
    page.add("Make it again", Code(content["command"]))
    page.write(folder / FILE)


def _summary(content: dict[str, Any]) -> list[str]:
    """The first run of each group, and what must not be compared."""
    lines = []
    for number, group in enumerate(content["groups"], start=1):
        rows = [row for row in content["runs"] if row["group"] == number]
        if len(rows) < 2:
            continue
        best = rows[0]
        scores = [f"{NUMBERS[key][0]} {best[key]:.{NUMBERS[key][1]}f}" for key in RANKED_BY if best[key] is not None]
        score = scores[0] if scores else "no score"
        lines.append(
            f"Nearest to its teacher of {len(rows)} runs ({group}) is {best['run']}: {score}, {best['megabytes']:.2f} MB."
        )
    lines += [GROUPS] if len(content["groups"]) > 1 else []
    return [*lines, TEACHERS] if len({row["model"] for row in content["runs"]}) > 1 else lines
