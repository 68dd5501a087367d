"""The charts of runs and comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vitdfq.reports.charts import DARK, INK, LIGHT, Chart, logarithmic
from vitdfq.reports.sqnr import UnitSqnr

MAX_HEADS = 3
ACROSS = 3  # panels beside each other
GAP = 0.06  # between maps, as a share of a map
LONGEST_LABEL = 24  # characters
LABEL_SIZE = 0.06  # of a name beside a point, as a share of the panel
WIDE = 20  # largest to smallest value
Points = Sequence[tuple[float, float]]


def unit_sqnr_chart(errors: Mapping[str, UnitSqnr]) -> Chart:
    """Return a chart of `sqnr.unit_sqnr`: the error of each unit alone, and of all units up to it."""

    def draw(figure: Any) -> None:
        axes, places = figure.subplots(), range(len(errors))
        axes.bar(places, [error.own for error in errors.values()], color=LIGHT, label="this unit alone")
        axes.plot(places, [error.so_far for error in errors.values()], color=DARK, marker="o", label="all units so far")
        axes.set_xticks(places, list(errors), rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("SQNR (dB)")
        axes.set_ylim(0, 1.25 * max((value for error in errors.values() for value in (error.own, error.so_far)), default=1.0))
        axes.legend(fontsize=8, ncols=2, loc="upper right")
        axes.grid(axis="y")

    text = "Student against teacher on synthetic images that calibration never saw, by unit; the lowest bar hurts most."
    return Chart((8, 3.2), draw, text)


def losses_chart(curves: Mapping[str, Points], unit: str, caption: str) -> Chart:
    """Return a panel for each loss.

    Args:
        curves: title -> its (step, value).
        unit: of the steps.
        caption: of the chart.
    """
    across = min(ACROSS, len(curves))
    down = -(-len(curves) // across)

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(h_pad=0.09)
        grid = figure.subplots(down, across, squeeze=False)
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_axis_off()
        for axes, (title, points) in zip(grid.flat, curves.items(), strict=False):
            values = [value for _, value in points]
            axes.plot([step for step, _ in points], values, color=DARK, linewidth=1.2)
            if is_wide(values):
                logarithmic(axes.set_yscale, axes.yaxis)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(unit, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid()

    return Chart((8 if across > 1 else 5, 0.3 + 2.1 * down), draw, caption)


def scatter_chart(panels: Mapping[str, Mapping[str, tuple[float, float]]], y: str, caption: str) -> Chart:
    """Return panels beside each other, each with a point and its name for each run.

    Args:
        panels: title of the x axis -> name -> (x, y).
        y: title of the y axis.
        caption: of the chart.
    """

    def draw(figure: Any) -> None:
        (grid,) = figure.subplots(1, len(panels), sharey=True, squeeze=False)
        for axes, (x, points) in zip(grid, panels.items(), strict=True):
            scales = ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis))
            for values, scale in zip(zip(*points.values(), strict=True), scales, strict=True):
                if is_wide(values):
                    logarithmic(*scale)
            axes.scatter(*zip(*points.values(), strict=True), color=DARK, s=28, zorder=3)
            axes.margins(x=0.22, y=0.18)  # room for the names
            for place, names in _labels(axes, points).items():
                label = axes.annotate(names, place, xytext=(6, 4), textcoords="offset points", fontsize=8)
                label.set_in_layout(False)  # a long one must not squeeze the panel
            axes.set_xlabel(x, fontsize=9)
            axes.tick_params(labelsize=8)
            axes.grid()
        grid[0].set_ylabel(y, fontsize=9)

    return Chart((4.2 * len(panels), 3.2), draw, caption)


def _labels(axes: Any, points: Mapping[str, tuple[float, float]]) -> dict[tuple[float, float], str]:
    """The names by place; points so near that their names would cover each other have one label."""
    axes.autoscale_view()
    labels: dict[tuple[float, float], str] = {}
    places: dict[tuple[float, float], Any] = {}
    for name, point in points.items():
        name = name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"  # of a path the end says more
        place = axes.transAxes.inverted().transform(axes.transData.transform(point))
        near = next((other for other, there in places.items() if max(abs(there - place)) < LABEL_SIZE), None)
        if near is None:
            labels[point], places[point] = name, place
        else:
            labels[near] += f", {name}"
    return labels


def is_wide(values: Sequence[float]) -> bool:
    """Return whether values need a logarithmic axis."""
    return min(values) > 0 and max(values) > WIDE * min(values)


def comparison_chart(rows: list[dict[str, Any]], columns: dict[str, str], title: str, teacher: dict[str, Any]) -> Chart:
    """Return a bar chart for each column: a bar for each row, with its standard deviation. Rows of real images are hatched.

    Args:
        rows: entries of compare.json's "rows".
        columns: key of a score -> title of its chart.
        title: of the figure.
        teacher: scores of the teacher by the same keys; a dotted line marks each.
    """
    down, places = -(-len(columns) // ACROSS), range(len(rows))

    def draw(figure: Any) -> None:
        figure.suptitle(title, fontsize=10)
        figure.get_layout_engine().set(h_pad=0.08)
        grid = figure.subplots(down, ACROSS, squeeze=False, sharey=True)
        for axes in list(grid.flat)[len(columns) :]:
            axes.set_axis_off()
        for axes, (key, heading) in zip(grid.flat, columns.items(), strict=False):
            values, spreads = ([row[kind][key] or 0 for row in rows] for kind in ("mean", "sd"))
            hatches = ["//" if row["uses_data"] else "" for row in rows]
            axes.barh(places, values, xerr=spreads, hatch=hatches, color=LIGHT, edgecolor=DARK, ecolor=INK, capsize=3)
            ends = [sign * spread + value for value, spread in zip(values, spreads, strict=True) for sign in (-1, 1)]
            if teacher.get(key) is not None:
                axes.axvline(teacher[key], color=INK, linestyle=":")
                ends.append(teacher[key])
            if min(ends) > 0.7 * max(ends):  # similar values: an axis from zero would hide their differences
                heading = f"{heading} (axis cut)"
                axes.set_xlim(min(ends) - 0.5 * (max(ends) - min(ends)) - 0.01, max(ends) + 0.1 * (max(ends) - min(ends)) + 0.01)
            axes.set_title(heading, fontsize=9)
            axes.set_yticks(places, [row["title"] for row in rows], fontsize=8)
            axes.tick_params(axis="x", labelsize=8)
            axes.locator_params(axis="x", nbins=5)  # more labels would overlap
        grid[0, 0].invert_yaxis()

    text = "Bars: mean over seeds, with its standard deviation; dotted: the teacher; hatched: calibrated on real images."
    return Chart((4 * ACROSS, 0.8 + down * (1 + 0.35 * len(rows))), draw, text)


def attention_chart(pixels: Tensor, maps: Tensor, priors: Tensor | None) -> Chart:
    """Return a row for each image: the image, then the attention of a few heads on its patches, each beside its prior.

    Args:
        pixels: (B, H, W, 3) bytes.
        maps: (B, num_heads, h, w).
        priors: (B, num_heads, h, w), or None if the method has none.
    """
    heads = min(maps.shape[1], MAX_HEADS)
    columns = [("image", pixels)]
    for head in range(heads):
        columns.append((f"head {head}", maps[:, head]))
        columns += [(f"prior {head}", priors[:, head])] if priors is not None else []
    columns.append(("mean of heads", maps.mean(1)))

    def draw(figure: Any) -> None:
        axes = figure.subplots()  # one for all: layout of an axes for each map would take seconds
        axes.set_axis_off()
        for column, (name, values) in enumerate(columns):
            left = column * (1 + GAP)
            axes.text(left + 0.5, -GAP, name, ha="center", fontsize=9)
            for row, shown in enumerate(values.numpy()):
                top = row * (1 + GAP)
                axes.imshow(shown, cmap="magma", extent=(left, left + 1, top + 1, top))
        axes.set_xlim(0, len(columns) * (1 + GAP) - GAP)
        axes.set_ylim(len(pixels) * (1 + GAP) - GAP, -3 * GAP)  # the first on top, below its title

    text = "The last block's attention to the patches of each image" + " beside the prior of its synthesis" * (priors is not None)
    return Chart((1.5 * len(columns), 1.5 * len(pixels) + 0.3), draw, f"{text}.")
