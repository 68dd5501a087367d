"""The page of `vitdfq analyze`, reports/index.html: its tables beside their charts."""

from pathlib import Path
from typing import Any

from vitdfq.reports.analysis_plots import analysis_charts
from vitdfq.reports.analysis_tables import analysis_tables, title_of
from vitdfq.reports.charts import has_matplotlib
from vitdfq.reports.page import FILE, NO_CHARTS, Grid, Page, Text, chart_figure

SECTIONS = {  # chart -> the section that it belongs to, in the order of the tables
    "sites.png": "Sensitivity of sites",
    "units.png": "Weights against activations",
    "outliers.png": "Outliers",
    "attention.png": "Attention",
    "bits.png": "Bits by layer",
}


def write_analysis_page(folder: Path, content: dict[str, Any]) -> None:
    """Write the page of an analysis.

    Args:
        folder: of the analysis.
        content: of analysis.json.
    """
    page = Page(
        f"Analysis of {content['model']} at {content['bits'].upper()}", f"vitdfq {content['vitdfq']}, {content['device']}"
    )
    worst = content["sites"][0]["site"]
    summary = [f"{title_of(content)}.", f"The site that costs most, quantized alone, is {worst}."]
    page.add("Summary", Text(summary if has_matplotlib() else [*summary, NO_CHARTS]))
    charts = analysis_charts(content)
    for (name, chart), table in zip(charts.items(), analysis_tables(content), strict=True):
        grid = Grid(table.headings, table.rows, table.num_names, notes=table.notes.splitlines())
        page.add(SECTIONS[name], chart_figure(chart), grid)
    page.write(folder / FILE)
