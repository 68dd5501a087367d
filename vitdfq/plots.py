"""Plots for OUT/reports; they need matplotlib, the extra `[report]`, and are left out without it."""

from pathlib import Path

from vitdfq.files import written_whole
from vitdfq.progress import say


def plot_unit_sqnr(sqnr: dict[str, float], path: Path) -> None:
    """Write a chart of `report.unit_sqnr`: how much of the teacher's signal is left after each unit."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say(f"{path.name} left out: pip install 'vitdfq[report]' brings matplotlib")
        return
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(sqnr)), list(sqnr.values()), marker="o")
    axes.set_xticks(range(len(sqnr)), list(sqnr), rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("SQNR after the unit (dB)")
    axes.set_title("student against teacher on the synthetic images; a steep fall names the unit that hurts", fontsize=9)
    axes.grid(alpha=0.3)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
