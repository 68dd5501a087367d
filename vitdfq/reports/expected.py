"""The expected agreement and loss of top-1 on real images, as text, and beside them what was measured."""

from typing import Any

TITLES = {"agreement": ("agreement with the teacher", "%"), "top1_loss": ("loss of top-1", "points")}
OF_FEATURES = "nothing is expected of real images: the estimate is about classes, and this model gives features"


def interval_text(numbers: dict[str, float], unit: str) -> tuple[str, str]:
    """Return a value with its unit, and the ends of its interval."""
    return f"{numbers['value']:.1f} {unit}", f"{numbers['low']:.1f} to {numbers['high']:.1f}"


def expected_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, expected value with its interval, measured value) of each number that is expected; none without any.

    Args:
        metrics: content of metrics.json. The measured value is empty where nothing was evaluated, or without labels.
    """
    expected = metrics.get("expected")  # absent in earlier versions' files
    if expected is None:
        return []
    teacher, student = metrics["teacher"]["top1"], metrics["student"]["top1"]
    measured = {
        "agreement": metrics["student"].get("agreement"),
        "top1_loss": None if teacher is None or student is None else teacher - student,
    }
    rows = []
    for key, (name, unit) in TITLES.items():
        number, interval = interval_text(expected[key], unit)
        value = measured[key]
        rows.append((name, f"{number} ({interval})", "" if value is None else f"{value:.1f} {unit}"))
    return rows


def expected_notes(metrics: dict[str, Any]) -> str:
    """Lines below the table of a run."""
    rows = expected_rows(metrics)
    if not rows:
        return OF_FEATURES if "expected" in metrics and "cosine" in metrics["student"] else ""
    is_measured = metrics["student"]["num_images"] is not None
    known = "" if is_measured else "; nothing was measured on real images"
    head = f"expected on real images, from synthetic images alone, {100 * metrics['expected']['level']:.0f} % intervals{known}:"
    return "\n".join([head, *(f"  {name}: {value}{measured and f'; measured: {measured}'}" for name, value, measured in rows)])
