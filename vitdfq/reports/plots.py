"""Plots. They need matplotlib, of the extra `[report]`; without it no plot is written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from vitdfq.common.files import written_whole
from vitdfq.reports.sqnr import UnitSqnr

logger = logging.getLogger(__name__)

MAX_HEADS = 3


def plot_unit_sqnr(errors: dict[str, UnitSqnr], path: Path) -> None:
    """Write a chart of `sqnr.unit_sqnr`: the error of each unit alone, and of all units up to it."""
    with png_figure(path, (8, 3.2)) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        places = range(len(errors))
        axes.bar(places, [error.own for error in errors.values()], color="#7a9cc6", label="this unit alone")
        axes.plot(places, [error.so_far for error in errors.values()], color="#33506e", marker="o", label="all units so far")
        axes.set_xticks(places, list(errors), rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("SQNR (dB)")
        axes.set_title("student against teacher on images that calibration never saw; the lowest bar hurts most", fontsize=9)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)


def plot_comparison(rows: list[dict[str, Any]], columns: dict[str, str], title: str, teacher: dict[str, Any], path: Path) -> None:
    """Write a bar chart for each column: a bar for each row, with its standard deviation. Rows of real images are hatched.

    Args:
        rows: entries of compare.json's "rows".
        columns: key of a score -> title of its chart.
        title: of the figure.
        teacher: scores of the teacher by the same keys; a dotted line marks each.
        path: of the PNG.
    """
    across = 3
    down = -(-len(columns) // across)
    with png_figure(path, (4 * across, 0.8 + down * (1 + 0.35 * len(rows)))) as figure:
        if figure is None:
            return
        figure.suptitle(title, fontsize=10)
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes in list(grid.flat)[len(columns) :]:
            axes.set_axis_off()
        places = range(len(rows))
        for axes, (key, heading) in zip(grid.flat, columns.items(), strict=False):
            values, spreads = ([row[kind][key] or 0 for row in rows] for kind in ("mean", "sd"))
            hatches = ["//" if row["uses_data"] else "" for row in rows]
            axes.barh(places, values, xerr=spreads, hatch=hatches, color="#7a9cc6", edgecolor="#33506e", capsize=3)
            ends = [sign * spread + value for value, spread in zip(values, spreads, strict=True) for sign in (-1, 1)]
            if teacher.get(key) is not None:
                axes.axvline(teacher[key], color="black", linestyle=":")
                ends.append(teacher[key])
            if min(ends) > 0.7 * max(ends):  # similar values: an axis from zero would hide their differences
                heading = f"{heading} (axis cut)"
                axes.set_xlim(min(ends) - 0.5 * (max(ends) - min(ends)) - 0.01, max(ends) + 0.1 * (max(ends) - min(ends)) + 0.01)
            axes.set_title(heading, fontsize=9)
            axes.set_yticks(places, [row["title"] for row in rows], fontsize=8)
            axes.tick_params(axis="x", labelsize=8)
        grid[0, 0].invert_yaxis()


def plot_attention(pixels: Tensor, maps: Tensor, priors: Tensor | None, path: Path) -> None:
    """Write a row for each image: the image, then the attention of a few heads on its patches, each beside its prior.

    Args:
        pixels: (B, H, W, 3) bytes.
        maps: (B, num_heads, h, w).
        priors: (B, num_heads, h, w), or None if the method has none.
        path: of the PNG.
    """
    heads = min(maps.shape[1], MAX_HEADS)
    columns = [("image", pixels)]
    for head in range(heads):
        columns.append((f"head {head}", maps[:, head]))
        columns += [(f"prior {head}", priors[:, head])] if priors is not None else []
    columns.append(("mean of heads", maps.mean(1)))
    with png_figure(path, (1.5 * len(columns), 1.6 * len(pixels) + 0.2)) as figure:
        if figure is None:
            return
        grid = figure.subplots(len(pixels), len(columns), squeeze=False)
        for row, row_axes in enumerate(grid):
            for axes, (name, values) in zip(row_axes, columns, strict=True):
                axes.imshow(values[row].numpy(), cmap="magma")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(name, fontsize=9)


@contextmanager
def png_figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Yield a figure that is written when the block ends; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.info(f"{path.name} left out: pip install 'vitdfq[report]' brings matplotlib")
        yield None
        return
    figure = Figure(figsize=size, layout="constrained")
    yield figure
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
