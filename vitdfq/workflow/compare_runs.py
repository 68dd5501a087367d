"""`vitdfq compare` over the folders of finished runs: their numbers in one table. Nothing is computed anew."""

import json
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json, write_text
from vitdfq.common.version import __version__
from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.recipe.reader import read_file
from vitdfq.reports import runs_table
from vitdfq.reports.charts import has_matplotlib
from vitdfq.reports.page import FILE as REPORT
from vitdfq.reports.tables import named_by
from vitdfq.workflow.artifacts import without_cost_options
from vitdfq.workflow.run import say_written

METRICS, RECIPE = "metrics.json", "recipe.yaml"
CONTENT, PAGE, TABLE = "compare.json", "compare.md", "compare.csv"
UNSEEN = "dead_leaves"
LONGEST_NAME = 80  # characters of the folder of results

logger = logging.getLogger(__name__)


def run_folders(sources: Sequence[str | Path | dict[str, Any]]) -> list[Path]:
    """Return the folders, if `sources` are folders; none if they are recipes.

    Raises:
        InputError: some are folders and some are not, or a folder is not a finished run's.
    """
    folders = [Path(source) for source in sources if not isinstance(source, dict) and Path(source).is_dir()]
    if folders and len(folders) < len(sources):
        other = next(source for source in sources if isinstance(source, dict) or not Path(source).is_dir())
        what = "a recipe" if isinstance(other, dict) else other
        raise InputError(f"compare takes recipes or folders of finished runs, not both: {folders[0]} is a folder, {what} is not")
    for folder in folders:
        if not (folder / METRICS).is_file():
            raise InputError(f"{folder}: no {METRICS}; a folder to compare is that of a run that has finished")
    return folders


def compare_runs(folders: Sequence[str | Path], *, out: str | Path | None = None) -> dict[str, Any]:
    """Compare finished runs, write the table to `out`, and return the content of compare.json.

    Runs are sorted by KL, then by agreement; those that give features by cosine. Runs that were measured on different images make
    groups, each with its own ranks. Runs without evaluation are ranked by their KL on synthetic images.

    Args:
        folders: of finished runs.
        out: folder for the results, `runs/compare_<names>` when None.

    Raises:
        InputError: a folder is not a finished run's, is named twice, or `out` holds something else.
    """
    paths = run_folders(folders)
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path, place in zip(paths, resolved, strict=True) if resolved.count(place) > 1)
        raise InputError(f"{twice}: named twice")
    out = Path(out) if out else _default_out(paths)
    _check_out(out)
    rows = [_row(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    content = _ranked(rows) | {"vitdfq": __version__, "command": shlex.join(["vitdfq", "compare", *map(str, paths)])}
    write_text(out / CONTENT, json.dumps(content, indent=2) + "\n")
    write_text(out / PAGE, runs_table.markdown(content))
    write_text(out / TABLE, runs_table.comma_separated(content))
    runs_table.write_runs_page(out, content)
    say_written(out, [PAGE, TABLE, CONTENT, REPORT])
    if not has_matplotlib():
        logger.info("charts left out: pip install 'vitdfq[report]' brings matplotlib")
    return content


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders; their paths, if two have one name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _default_out(paths: Sequence[Path]) -> Path:
    names = "_".join(re.sub(r"[^\w.-]+", "_", path.resolve().name) for path in paths)
    return Path("runs") / f"compare_{names}"[:LONGEST_NAME]


def _check_out(out: Path) -> None:
    """Refuse to write among other files."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise InputError(f"{out}: not a folder")
    if (out / RECIPE).exists() or "runs" not in (read_json(out / CONTENT) if (out / CONTENT).is_file() else {}):
        raise InputError(f"{out}: holds other files; choose another --out")


def _row(folder: Path, name: str) -> dict[str, Any]:
    """The numbers of one run, and what they were measured on."""
    metrics = read_json(folder / METRICS)
    try:
        student, teacher, synthesis = metrics["student"], metrics["teacher"], metrics["synthesis"]
        unseen = metrics.get("synthetic", {}).get(UNSEEN, {})
        return {
            "run": name,
            "folder": str(folder),
            "model": teacher["name"],
            "bits": bits_title(bits_name(student["weight_bits"], student["activation_bits"]), **named_by(student)),
            "images": f"{synthesis['num_images']} {synthesis['method']}",
            "seed": metrics["seed"],
            **{key: student.get(key) for key in ("kl", "agreement", "cosine", "relative_error", "top1", "num_images")},
            "teacher_top1": teacher["top1"],
            "megabytes": metrics["size"]["packed_bytes"] / 1e6,
            "seconds": round(synthesis["seconds"] + metrics["calibration"]["seconds"], 2),
            **{f"unseen_{key}": unseen.get(key) for key in ("kl", "agreement", "cosine")},
            **_expected(metrics.get("expected")),
            "measured_on": _measured_on(folder, metrics),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / METRICS}: not the metrics of a finished run ({error!r})") from None


def _expected(expected: dict[str, Any] | None) -> dict[str, float | None]:
    """What a run expects of real images, with the worse end of each interval; None: earlier versions, and features."""
    agreement, loss = (expected[key] if expected else {} for key in ("agreement", "top1_loss"))
    return {
        "expected_agreement": agreement.get("value"),
        "expected_agreement_low": agreement.get("low"),
        "expected_loss": loss.get("value"),
        "expected_loss_high": loss.get("high"),
    }


def _measured_on(folder: Path, metrics: dict[str, Any]) -> str:
    """What the numbers of a run were measured on, in words: equal texts mean equal images, read in the same way."""
    if metrics["student"]["num_images"] is None:
        return f"{runs_table.NOT_EVALUATED} of seed {metrics['seed']}"
    section = read_file(folder / RECIPE).content.get("evaluate") or {}
    options = without_cost_options(section, "num_images", "dataset", "split")
    dataset = section.get("dataset", "imagenet-1k")
    where = f"{metrics['student']['num_images']:,} images of {dataset}, {section.get('split', 'validation')}"
    return where + (f" ({', '.join(f'{key}: {value}' for key, value in sorted(options.items()))})" if options else "")


def _ranked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return {"runs": rows with group and rank, in their order, "groups": what each was measured on}, larger groups first."""
    texts = [row["measured_on"] for row in rows]
    groups = sorted(dict.fromkeys(texts), key=lambda text: (text.startswith(runs_table.NOT_EVALUATED), -texts.count(text)))
    ranked = []
    for number, text in enumerate(groups, start=1):
        members = sorted((row for row in rows if row["measured_on"] == text), key=_nearness)
        ranked += [row | {"group": number, "rank": rank} for rank, row in enumerate(members, start=1)]
    return {"runs": ranked, "groups": groups}


def _nearness(row: dict[str, Any]) -> tuple[float, ...]:
    """Smallest for the run that is nearest to its teacher."""
    prefix = "" if row["num_images"] is not None else "unseen_"
    kl, agreement, cosine = (row[f"{prefix}{key}"] for key in ("kl", "agreement", "cosine"))
    infinity = float("inf")
    return infinity if kl is None else kl, -(agreement or 0.0), -(cosine or 0.0)
