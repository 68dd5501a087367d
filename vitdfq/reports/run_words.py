"""What the page of a run says in words, from the content of metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.reports.expected import expected_rows, interval_text
from vitdfq.reports.page import Tiles
from vitdfq.reports.plots import Points
from vitdfq.reports.tables import FEATURES, named_by
from vitdfq.synthesis.mix import SELF
from vitdfq.synthesis.presets import OWN

COMMAND = "vitdfq run recipe.yaml"
SCORES_NOTE = (
    "Agreement: images on which student and teacher give the same class. KL: divergence of their class probabilities in nats. "
    "SQNR: signal to quantization noise. The row that is set off is the saved checkpoint; the others are measured beside it."
)
WITHOUT_DATA = (
    "Student against teacher on synthetic images. This needs no data, so it is known of every run. The numbers on images that "
    "calibration never saw count; to its own images the student was fitted."
)
EXPECTED = (
    "What to expect on real images, estimated from synthetic images alone. In nine of ten cases the truth should be within the "
    "interval; it was calibrated on other, small models."
)
LOSSES = "As recorded while the images were optimized and the student was trained. A jump is where a new batch or unit begins."
MEMORY_NOTE = (
    "Time of the work itself, also where a later run used the result again. Memory: the peak of the process, or of the GPU where "
    "one computed, by the end of the stage."
)
KINDS = {"calibration": "of its own calibration"}
SYNTHETIC = {
    "num_images": ("number", 0),
    "agreement": ("agreement %", 1),
    "kl": ("KL", 5),
    "logits_sqnr_db": ("SQNR dB", 1),
    **FEATURES,
}
NATURAL = "dead_leaves"  # the unseen images that are most like photographs


def title_of(metrics: dict[str, Any]) -> str:
    """The student's name: the teacher's, and the bits."""
    return f"{metrics['teacher']['name']} at {bits_of(metrics)}"


def bits_of(metrics: dict[str, Any]) -> str:
    """The student's bits, "W4A4" for example."""
    student = metrics["student"]
    return bits_title(bits_name(student["weight_bits"], student["activation_bits"]), **named_by(student))


def subtitle(metrics: dict[str, Any]) -> str:
    """Version, seed and device."""
    processes = metrics["num_processes"]
    return f"vitdfq {metrics['vitdfq']}, seed {metrics['seed']}, {metrics['device']}" + (
        f", {processes} processes" if processes > 1 else ""
    )


def summary(metrics: dict[str, Any]) -> list[str]:
    """What was made, how large it is, how near it is to its teacher, and on which images that is known."""
    synthesis = metrics["synthesis"]
    made = _made(synthesis)
    if "student" not in metrics:
        return [f"{made} Nothing is quantized yet."]
    size = metrics["size"]
    ratio = size["float_bytes"] / size["packed_bytes"]
    first = f"{metrics['teacher']['name']} was quantized to {bits_of(metrics)}. {made}"
    second = (
        f"The packed checkpoint takes {size['packed_bytes'] / 1e6:.2f} MB; the parameters in float32 take "
        f"{size['float_bytes'] / 1e6:.2f} MB, {ratio:.1f} times as much."
    )
    return [first, second, *_nearness(metrics)]


def _made(synthesis: dict[str, Any]) -> str:
    count = synthesis["num_images"]
    if synthesis["method"] == OWN:
        return f"It was calibrated on {count} images that were given to it."
    how = f" in {synthesis['steps']} steps" if synthesis["steps"] else ", without optimization"
    return f"No real image was used: method {synthesis['method']} made {count} images from the model alone{how}."


def _nearness(metrics: dict[str, Any]) -> list[str]:
    teacher, student = metrics["teacher"], metrics["student"]
    if student["num_images"] is None:
        known = ["There were no images to evaluate on, so its accuracy is not known.", *_expected(metrics), *_unseen(metrics)]
        return [" ".join(known)]
    labels = "" if teacher["top1"] is not None or "cosine" in student else " without labels"
    on = f"On {student['num_images']:,} images{labels} that it was not calibrated on"
    if "cosine" in student:
        text = f"{on}, its features have a cosine of {student['cosine']:.4f} to the teacher's"
    else:
        text = f"{on}, it gives the teacher's class on {student['agreement']:.2f} %, with a KL of {student['kl']:.4f} nats"
    if teacher["top1"] is not None:
        text += f"; its top-1 is {student['top1']:.2f} %, the teacher's {teacher['top1']:.2f} %"
    return [f"{text}.", *_baselines(metrics), *_unseen(metrics)]


def _baselines(metrics: dict[str, Any]) -> list[str]:
    parts = []
    for name, row in metrics["baselines"].items():
        near = f"a cosine of {row['cosine']:.4f}" if "cosine" in row else f"{row['agreement']:.2f} % and a KL of {row['kl']:.4f}"
        parts.append(f"the same student calibrated on {name} images has {near}")
    return [f"For comparison, {'; '.join(parts)}."] if parts else []


def _expected(metrics: dict[str, Any]) -> list[str]:
    rows = [f"{name} {value}" for name, value, _ in expected_rows(metrics)]
    return [f"Expected of real images, from synthetic images alone: {', '.join(rows)}."] if rows else []


def _unseen(metrics: dict[str, Any]) -> list[str]:
    row = metrics.get("synthetic", {}).get(NATURAL)
    if row is None:
        return []
    on = f"On {row['num_images']} synthetic images ({kind_title(NATURAL)}) that it never saw"
    if "cosine" in row:
        return [f"{on}, its features have a cosine of {row['cosine']:.4f} to the teacher's."]
    return [f"{on}, it gives the teacher's class on {row['agreement']:.1f} %, with a KL of {row['kl']:.4f} nats."]


def tiles(metrics: dict[str, Any]) -> Tiles | None:
    """The key figures of a student; on synthetic images where there are no others."""
    if "student" not in metrics:
        return None
    student, teacher, size = metrics["student"], metrics["teacher"], metrics["size"]
    measured = student["num_images"] is not None
    row = student if measured else metrics.get("synthetic", {}).get(NATURAL, {})
    on = f"on {row['num_images']:,} {'images' if measured else 'synthetic images'}" if row else ""
    figures = [("size", f"{size['packed_bytes'] / 1e6:.2f} MB", f"float32: {size['float_bytes'] / 1e6:.2f} MB")]
    if not measured and (expected := metrics.get("expected")):
        figures.append(("expected agreement", *interval_text(expected["agreement"], "%")))
        figures.append(("expected loss of top-1", *interval_text(expected["top1_loss"], "points")))
    for key, name, unit, digits in (("agreement", "agreement", " %", 2), ("kl", "KL", "", 4), ("cosine", "cosine", "", 4)):
        if row.get(key) is not None:
            figures.append((name, f"{row[key]:.{digits}f}{unit}", on))
    if student["top1"] is not None:
        figures.append(("top-1", f"{student['top1']:.2f} %", f"teacher: {teacher['top1']:.2f} %"))
    return Tiles(figures)


def synthetic_columns(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """The columns of the table of scores on synthetic images: key -> (heading, digits)."""
    return {key: column for key, column in SYNTHETIC.items() if any(row.get(key) is not None for row in scores.values())}


def kind_title(kind: str) -> str:
    """What a kind of synthetic images is called: "dead leaves"."""
    return KINDS.get(kind, kind.replace("_", " "))


def about_images(synthesis: dict[str, Any], rows: Sequence[Mapping[str, Any]], shown: int) -> list[str]:
    """How the images were made, and what the captions say."""
    seconds = synthesis["seconds"]
    made = f"{shown} of {synthesis['num_images']} images" if shown < synthesis["num_images"] else f"All {shown} images"
    made += f" of method {synthesis['method']}" + (f", made in {seconds:,.1f} seconds." if seconds else ".")
    labels = sorted({row["labels"].replace("_", "-") for row in rows if "target" in row})
    if labels:
        return [f"{made} First the target ({' and '.join(labels)} label), then the teacher's class and its confidence."]
    if any("class" in row for row in rows):
        return [f"{made} They have no target; below each is what the teacher takes it for, and its confidence."]
    return [f"{made} The teacher gives features, so there are no classes."]


def caption(row: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """The lines below one image."""

    def name(number: int) -> str:
        return names.get(str(number), f"class {number}")

    lines = [name(row["target"])] if "target" in row else []
    if "class" in row:
        lines.append(f"{name(row['class'])} {row['confidence']:.2f}")
    return lines


def curve_titles(curves: Mapping[str, Mapping[str, Any]], method: str) -> dict[str, Points]:
    """Name curves for people: {"self/synthesize/total_variation": ...} becomes {"total variation": ...}, parts where needed.

    Args:
        curves: of the file of a `LossRecorder`.
        method: of the synthesis, whose own images are called "self" beside those of its mix.
    """
    known = {name: curve["points"] for name, curve in curves.items() if len(curve["points"]) > 1}
    short = {name: _curve_title(name) for name in known}
    repeated = {title for title in short.values() if list(short.values()).count(title) > 1}
    titles = {}
    for name, points in known.items():
        part = name.split("/")[0]
        titles[f"{method if part == SELF else part}: {short[name]}" if short[name] in repeated else short[name]] = points
    return titles


def _curve_title(name: str) -> str:
    stage, loss = name.split("/")[-2:]
    return stage if loss == "loss" else loss.replace("_", " ")


def again(metrics: dict[str, Any]) -> list[str]:
    """What to do with the command."""
    lines = ["With the recipe above, saved as recipe.yaml; it is also in the folder of this run."]
    if "student" in metrics:
        lines.append(f"The same seed ({metrics['seed']}) gives the same images and the same checkpoint on the same machine.")
    return lines
