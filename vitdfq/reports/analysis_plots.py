"""The charts of `vitdfq analyze`, from the content of analysis.json. They need matplotlib, as `plots.py`."""

from pathlib import Path
from typing import Any

from vitdfq.reports.plots import png_figure

FILES = ["sites.png", "units.png", "outliers.png", "attention.png", "bits.png"]  # the last two where there is something to show
MOST_SITES = 60
LIGHT, DARK = "#7a9cc6", "#33506e"
COLORS = {"weight": "#33506e", "input": "#c6803a", "left": "#7a9cc6", "right": "#6b9e6b"}
LEAST = 1e-9  # on a logarithmic axis


def plot_analysis(content: dict[str, Any], folder: Path) -> None:
    """Write the charts of an analysis to a folder."""
    plot_sites(content, folder / "sites.png")
    plot_units(content["units"], folder / "units.png")
    plot_outliers(content["ranges"], folder / "outliers.png")
    if content["attention"]:
        plot_attention_errors(content["attention"], folder / "attention.png")
    if content["allocation"]:
        plot_bits(content["allocation"]["bits"], folder / "bits.png")


def plot_sites(content: dict[str, Any], path: Path) -> None:
    """Write a bar for each site, the most sensitive first: the error of the student with this site alone quantized."""
    rows = content["sites"][:MOST_SITES]
    has_kl = rows[0]["alone"]["kl"] is not None
    values = [max(row["alone"]["kl"], LEAST) if has_kl else row["alone"]["sqnr_db"] or 0.0 for row in rows]
    with png_figure(path, (8, 0.8 + 0.17 * len(rows))) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        axes.barh(range(len(rows)), values, color=LIGHT)
        axes.set_yticks(range(len(rows)), [row["site"] for row in rows], fontsize=7)
        axes.invert_yaxis()
        if has_kl:
            axes.set_xscale("log")
        axes.set_xlabel("KL to the teacher, this site alone quantized" if has_kl else "SQNR (dB), this site alone quantized")
        axes.grid(alpha=0.3, axis="x")


def plot_units(units: list[dict[str, Any]], path: Path) -> None:
    """Write the SQNR of each unit with its weights, its activations and both quantized."""
    with png_figure(path, (8, 3.2)) as figure:
        if figure is None:
            return
        axes, places = figure.subplots(), range(len(units))
        for kind, color, shift in (("weights", DARK, -0.2), ("activations", LIGHT, 0.2)):
            axes.bar([place + shift for place in places], [unit[kind] or 0.0 for unit in units], 0.38, color=color, label=kind)
        axes.plot(places, [unit["both"] or 0.0 for unit in units], color="black", marker="o", markersize=3, label="both")
        axes.set_xticks(places, [unit["unit"] for unit in units], rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("SQNR (dB)")
        axes.set_title("error of each unit alone; the lower of two bars hurts more", fontsize=9)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)


def plot_outliers(ranges: list[dict[str, Any]], path: Path) -> None:
    """Write, for each quantizer, how far its largest value and its largest channel stand out, in the order of the sites."""
    sites = list(dict.fromkeys(row["site"] for row in ranges))
    with png_figure(path, (max(6.0, 0.16 * len(sites) + 2), 5)) as figure:
        if figure is None:
            return
        grid = figure.subplots(2, 1, sharex=True)
        for axes, key, title in zip(
            grid, ("peak_to_rms", "channel_ratio"), ("largest value / rms", "largest / median channel"), strict=True
        ):
            for part, color in COLORS.items():
                rows = [row for row in ranges if row["part"] == part]
                axes.scatter(
                    [sites.index(row["site"]) for row in rows], [row[key] for row in rows], s=12, color=color, label=part
                )
            axes.set_yscale("log")
            axes.set_ylabel(title, fontsize=8)
            axes.grid(alpha=0.3)
        grid[0].legend(fontsize=8, ncols=len(COLORS))
        grid[1].set_xticks(range(len(sites)), sites, rotation=90, fontsize=6)


def plot_attention_errors(attention: list[dict[str, Any]], path: Path) -> None:
    """Write a map of divergences: an attention in each column, a head in each row."""
    heads = max(len(row["kl_by_head"]) for row in attention)
    values = [
        [row["kl_by_head"][head] if head < len(row["kl_by_head"]) else float("nan") for row in attention] for head in range(heads)
    ]
    with png_figure(path, (max(4.0, 0.35 * len(attention) + 2), 1.6 + 0.25 * heads)) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="magma", aspect="auto")
        axes.set_xticks(range(len(attention)), [row["site"] for row in attention], rotation=60, ha="right", fontsize=7)
        axes.set_ylabel("head")
        axes.set_title("KL of attention rows, float to quantized (nats)", fontsize=9)
        figure.colorbar(shown, ax=axes)


def plot_bits(bits: dict[str, int], path: Path) -> None:
    """Write the bits of each layer's weight."""
    with png_figure(path, (max(6.0, 0.18 * len(bits) + 2), 3.4)) as figure:
        if figure is None:
            return
        axes = figure.subplots()
        axes.bar(range(len(bits)), list(bits.values()), color=LIGHT)
        axes.set_xticks(range(len(bits)), list(bits), rotation=90, fontsize=6)
        axes.set_ylabel("bits of the weight")
        axes.grid(alpha=0.3, axis="y")
