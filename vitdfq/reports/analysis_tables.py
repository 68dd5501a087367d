"""The tables of `vitdfq analyze`, from the content of analysis.json: for the terminal, and as a page of markdown."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group

from vitdfq.reports.tables import FittingTable, format_number, markdown_table

MOST_RANGES = 10  # rows of the table of outliers; analysis.json holds all
KINDS = (("alone", "alone"), ("all_but", "all but it"))
SCORES = {"kl": ("KL", 5), "sqnr_db": ("SQNR dB", 1), "agreement": ("agreement %", 2)}
MEASURED = {"top1": ("top-1 %", 2), "cosine": ("cosine", 4)}  # on real images
SITES_NOTE = "alone: this site is quantized and nothing else; all but it: everything else is. The first row hurts most."
UNITS_NOTE = "SQNR in dB of what each unit writes, for its float input; the smallest number hurts most"
RANGES_NOTE = (
    "peak / rms: largest magnitude over root mean square, 4 to 5 without outliers; channels: largest over median channel;\n"
    "SQNR: of the rounded values"
)
ATTENTION_NOTE = "divergence of the student's attention rows from the teacher's in nats; entropy: of the teacher's rows"


def analysis_tables(content: dict[str, Any]) -> list[FittingTable]:
    """Return the tables of an analysis: sites, units, outliers, attention where there is one, bits by layer with a budget."""
    tables = [_sites(content), _units(content), _ranges(content)]
    tables += [_attention(content)] if content["attention"] else []
    return tables + ([_allocation(content)] if content["allocation"] else [])


def rendered(content: dict[str, Any]) -> Group:
    """Return the tables for the terminal."""
    return Group(*analysis_tables(content))


def markdown(content: dict[str, Any]) -> str:
    """Return the page analysis.md."""
    parts = []
    for table in analysis_tables(content):
        lines = markdown_table(table.headings, table.rows, table.num_names)
        parts.append(f"## {table.title}\n\n{lines}\n\n{table.notes}".rstrip())
    return f"# {title_of(content)}\n\n" + "\n\n".join(parts) + "\n"


def is_better(allocation: dict[str, Any]) -> bool:
    """Return whether bits by layer have a smaller error on held-out images than the same bits everywhere, if those fit."""
    uniform = allocation["uniform"]
    if uniform is None:
        return True
    mine, other = allocation["scores"], uniform["scores"]
    if mine["kl"] is not None:
        return mine["kl"] < other["kl"]
    return mine["sqnr_db"] is None or (other["sqnr_db"] is not None and mine["sqnr_db"] > other["sqnr_db"])


def title_of(content: dict[str, Any]) -> str:
    """Return what was analyzed, and on which images."""
    images = f"{content['num_images']} images for calibration, {content['num_held_out']} others for the errors"
    return f"{content['model']} at {content['bits'].upper()}, not trained: {images}, seed {content['seed']}"


def _sites(content: dict[str, Any]) -> FittingTable:
    rows = content["sites"]
    scores = [key for key in SCORES if any(row["alone"][key] is not None for row in rows)]
    measured = [key for key in MEASURED if any(row["alone_measured"].get(key) is not None for row in rows)]
    headings = ["site", "bits"]
    for _, kind in KINDS:
        headings += [f"{SCORES[key][0]} {kind}" for key in scores] + [f"{MEASURED[key][0]} {kind}" for key in measured]
    whole = _numbers(content["student"], content["measured"], scores, measured)
    texts = [["(all sites)", "", *[""] * len(whole), *whole]]  # below the columns of "all but it"
    for row in rows:
        numbers = [number for kind, _ in KINDS for number in _numbers(row[kind], row[f"{kind}_measured"], scores, measured)]
        texts.append([row["site"], _bits(row["bits"]), *numbers])
    return FittingTable(f"sensitivity of sites: {title_of(content)}", headings, texts, num_names=2, notes=SITES_NOTE)


def _numbers(row: dict[str, Any], real: dict[str, Any], scores: Iterable[str], measured: Iterable[str]) -> list[str]:
    numbers = [format_number(row[key], None, SCORES[key][1]) for key in scores]
    return numbers + [format_number(real.get(key), None, MEASURED[key][1]) for key in measured]


def _bits(bits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in bits.items())


def _units(content: dict[str, Any]) -> FittingTable:
    kinds = ("weights", "activations", "both")
    rows = [[row["unit"], *(format_number(row[kind], None, 1) for kind in kinds)] for row in content["units"]]
    return FittingTable("weight error against activation error", ["unit", *kinds], rows, notes=UNITS_NOTE)


def _ranges(content: dict[str, Any]) -> FittingTable:
    worst = sorted(content["ranges"], key=lambda row: -max(row["peak_to_rms"], row["channel_ratio"]))[:MOST_RANGES]
    headings = ["site", "values", "bits", "least", "largest", "peak / rms", "channels", "SQNR dB"]
    rows = []
    for row in worst:
        numbers = [
            (row["least"], 3),
            (row["largest"], 3),
            (row["peak_to_rms"], 1),
            (row["channel_ratio"], 1),
            (row["sqnr_db"], 1),
        ]
        rows.append([row["site"], row["part"], str(row["bits"]), *(format_number(value, None, d) for value, d in numbers)])
    return FittingTable(
        f"largest outliers, {len(rows)} of {len(content['ranges'])}", headings, rows, num_names=2, notes=RANGES_NOTE
    )


def _attention(content: dict[str, Any]) -> FittingTable:
    rows = [
        [row["site"], *(format_number(value, None, 4) for value in (row["kl"], max(row["kl_by_head"]), row["entropy"]))]
        for row in content["attention"]
    ]
    headings = ["attention", "KL", "KL of the worst head", "entropy"]
    return FittingTable("attention of the quantized student", headings, rows, notes=ATTENTION_NOTE)


def _allocation(content: dict[str, Any]) -> FittingTable:
    found = content["allocation"]
    rows = [[layer, str(bits)] for layer, bits in found["bits"].items()]
    lines = [f"{found['budget']} {found['cost']:.6g} of {found['amount']:.6g}; {_held_out(found['scores'])}"]
    if found["uniform"]:
        uniform = found["uniform"]
        lines.append(f"all at {uniform['bits']} bits: {found['budget']} {uniform['cost']:.6g}; {_held_out(uniform['scores'])}")
    return FittingTable("bits by layer", ["layer", "bits of its weight"], rows, notes="\n".join(lines))


def _held_out(scores: dict[str, Any]) -> str:
    known = [f"{name} {scores[key]:.{digits}f}" for key, (name, digits) in SCORES.items() if scores[key] is not None]
    return f"on held-out images {', '.join(known)}"
