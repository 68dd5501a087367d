"""The charts of `vitdfq analyze`, from the content of analysis.json."""

from typing import Any

from vitdfq.reports.charts import DARK, INK, LEAF, LIGHT, WARM, Chart, logarithmic

FILES = ["sites.png", "units.png", "outliers.png", "attention.png", "bits.png"]  # the last two where there is something to show
MOST_SITES = 60
COLORS = {"weight": DARK, "input": WARM, "left": LIGHT, "right": LEAF}
LEAST = 1e-9  # on a logarithmic axis


def analysis_charts(content: dict[str, Any]) -> dict[str, Chart]:
    """Return the charts of an analysis by file name, in the order of `FILES`."""
    charts = [sites_chart(content), units_chart(content["units"]), outliers_chart(content["ranges"])]
    names = FILES[:3]
    if content["attention"]:
        charts.append(attention_errors_chart(content["attention"]))
        names.append(FILES[3])
    if content["allocation"]:
        charts.append(bits_chart(content["allocation"]["bits"]))
        names.append(FILES[4])
    return dict(zip(names, charts, strict=True))


def sites_chart(content: dict[str, Any]) -> Chart:
    """Return a point for each site, the most sensitive first: the error of the student with this site alone quantized."""
    rows = content["sites"][:MOST_SITES]
    has_kl = rows[0]["alone"]["kl"] is not None
    values = [max(row["alone"]["kl"], LEAST) if has_kl else row["alone"]["sqnr_db"] or 0.0 for row in rows]
    what = "KL to the teacher" if has_kl else "SQNR (dB)"

    def draw(figure: Any) -> None:
        axes, places = figure.subplots(), range(len(rows))
        axes.scatter(values, places, color=DARK, s=18)  # no bars: a logarithmic axis has no zero for them to begin at
        axes.set_yticks(places, [row["site"] for row in rows], fontsize=7)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
        if has_kl:
            axes.set_xscale("log")
        axes.set_xlabel(f"{what}, this site alone quantized")
        axes.grid()

    return Chart((8, 0.8 + 0.17 * len(rows)), draw, f"{what} with one site quantized and nothing else, the most sensitive first.")


def units_chart(units: list[dict[str, Any]]) -> Chart:
    """Return the SQNR of each unit with its weights, its activations and both quantized."""

    def draw(figure: Any) -> None:
        axes, places = figure.subplots(), range(len(units))
        for kind, color, shift in (("weights", DARK, -0.2), ("activations", LIGHT, 0.2)):
            axes.bar([place + shift for place in places], [unit[kind] or 0.0 for unit in units], 0.38, color=color, label=kind)
        axes.plot(places, [unit["both"] or 0.0 for unit in units], color=INK, marker="o", markersize=3, label="both")
        axes.set_xticks(places, [unit["unit"] for unit in units], rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("SQNR (dB)")
        highest = max((unit[kind] or 0.0 for unit in units for kind in ("weights", "activations", "both")), default=1.0)
        axes.set_ylim(0, 1.25 * highest)  # room for the legend
        axes.legend(fontsize=8, ncols=3, loc="upper right")
        axes.grid(axis="y")

    return Chart((8, 3.2), draw, "Error of each unit alone: the lower of its two bars hurts more.")


def outliers_chart(ranges: list[dict[str, Any]]) -> Chart:
    """Return, for each quantizer, how far its largest value and its largest channel stand out, in the order of the sites."""
    sites = list(dict.fromkeys(row["site"] for row in ranges))
    panels = (("peak_to_rms", "largest value / rms"), ("channel_ratio", "largest / median channel"))

    def draw(figure: Any) -> None:
        grid = figure.subplots(2, 1, sharex=True)
        for axes, (key, title) in zip(grid, panels, strict=True):
            for part, color in COLORS.items():
                rows = [row for row in ranges if row["part"] == part]
                places = [sites.index(row["site"]) for row in rows]
                axes.scatter(places, [row[key] for row in rows], s=12, color=color, label=part)
            logarithmic(axes.set_yscale, axes.yaxis)
            axes.set_xlim(-0.8, len(sites) - 0.2)
            axes.set_ylabel(title, fontsize=8)
            axes.grid()
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", fontsize=8, ncols=len(COLORS))
        grid[1].set_xticks(range(len(sites)), sites, rotation=90, fontsize=6)

    text = "How far the largest value and the largest channel of each quantizer stand out, in the order of the sites."
    return Chart((max(6.0, 0.16 * len(sites) + 2), 5), draw, text)


def attention_errors_chart(attention: list[dict[str, Any]]) -> Chart:
    """Return a map of divergences: an attention in each column, a head in each row."""
    heads = max(len(row["kl_by_head"]) for row in attention)
    values = [
        [row["kl_by_head"][head] if head < len(row["kl_by_head"]) else float("nan") for row in attention] for head in range(heads)
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="magma", aspect="auto")
        axes.set_xticks(range(len(attention)), [row["site"] for row in attention], rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(heads))
        axes.set_ylabel("head")
        figure.colorbar(shown, ax=axes, label="KL (nats)")

    text = "Divergence of the quantized student's attention rows from the teacher's, by head."
    return Chart((max(4.0, 0.35 * len(attention) + 2), 1.6 + 0.25 * heads), draw, text)


def bits_chart(bits: dict[str, int]) -> Chart:
    """Return the bits of each layer's weight."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.bar(range(len(bits)), list(bits.values()), color=LIGHT)
        axes.set_xticks(range(len(bits)), list(bits), rotation=90, fontsize=6)
        axes.set_yticks(range(max(bits.values()) + 1))
        axes.set_ylabel("bits of the weight")
        axes.grid(axis="y")

    return Chart((max(6.0, 0.18 * len(bits) + 2), 3.4), draw, "Bits of each layer's weight.")
