"""`vitdfq bench RUN`: the speed of a finished run's model in every form on this machine's CPU, and which form to deploy."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vitdfq.checkpoint import save_load
from vitdfq.common.errors import InputError
from vitdfq.cost.forms import FLOAT32, INTEGER, QUANTIZED, TITLES, forms_of
from vitdfq.cost.timing import ImageTime, least_times, processor_name
from vitdfq.models import build, image_size
from vitdfq.quantization.modules import title_of

logger = logging.getLogger(__name__)

BATCHES = "1,8,32"
TURNS = 4
PHRASES = {  # a form as the sentence names it, where its title is not enough
    INTEGER: "`to_integer`",
    "float32 file, onnxruntime": "the float32 file in onnxruntime",
    "float32 file, OpenVINO": "the float32 file in OpenVINO",
    "float32 file, OpenVINO in bfloat16": "the float32 file in OpenVINO, in bfloat16",
    "student's file, onnxruntime": "the student's file in onnxruntime (`vitdfq export`)",
    "student's file, OpenVINO": "the student's file in OpenVINO (`vitdfq export --runtime openvino`)",
}
GAIN = 1.05  # times as fast as all forms before it in `TITLES`: less is within what a measurement is off by


def benchmark_run(folder: str | Path, batches: Sequence[int]) -> dict[str, Any]:
    """Measure the forms of a run's model on random images. Files are written to a temporary folder.

    Args:
        folder: of a finished run, with config.json and model.safetensors. Its teacher's weights are not needed.
        batches: images in one call.

    Returns:
        "run", "model", "bits", "processor", "threads".
        "forms": {title: {batch size, as text: {"ms", "processor_ms", "speedup"}}}, times of one image, the least of several
            turns; the speedup over float32 is in processor time.
        "left_out": {title: reason}.
        "deploy": {batch size, as text: title}; "advice": the same as one sentence.

    Raises:
        InputError: as `load`.
    """
    student: Any = save_load.load(folder)
    teacher = build(save_load.read_config(Path(folder))["vitdfq"])
    threads = torch.get_num_threads()
    times: dict[int, dict[str, ImageTime]] = {}
    with TemporaryDirectory() as files:
        logger.info("writing files for the runtimes that are installed")
        forms, left_out = forms_of(student, teacher, Path(files), threads)
        for batch in batches:
            logger.info(f"{len(forms)} forms take turns at batch {batch}")
            times[batch] = least_times(forms, torch.randn(batch, 3, *image_size(teacher)), TURNS)
    processor_ms = {batch: {title: time.processor_ms for title, time in of_batch.items()} for batch, of_batch in times.items()}
    deploy = {batch: best_form(of_batch) for batch, of_batch in processor_ms.items()}
    return {
        "run": str(folder),
        "model": student.vitdfq["model"]["name"],
        "bits": title_of(student),
        "processor": processor_name(),
        "threads": threads,
        "forms": {
            title: {
                str(batch): asdict(of_batch[title]) | {"speedup": of_batch[FLOAT32].processor_ms / of_batch[title].processor_ms}
                for batch, of_batch in times.items()
            }
            for title in forms
        },
        "left_out": left_out,
        "deploy": {str(batch): title for batch, title in deploy.items()},
        "advice": advice(processor_ms),
    }


def best_form(ms: Mapping[str, float]) -> str:
    """Return the form to deploy, of title -> milliseconds: one farther from the float model must be faster by `GAIN`."""
    best = FLOAT32
    for title in TITLES:
        if title in ms and ms[title] * GAIN <= ms[best]:
            best = title
    return best


def advice(ms: Mapping[int, Mapping[str, float]]) -> str:
    """Return one sentence that says what to deploy, of batch size -> title -> milliseconds."""
    batches: dict[str, list[int]] = {}
    for batch, of_batch in ms.items():
        batches.setdefault(best_form(of_batch), []).append(batch)
    parts = []
    for title, sizes in batches.items():
        speedups = _listed([f"{ms[size][FLOAT32] / ms[size][title]:.2f}" for size in sizes])
        why = f"no other form is {GAIN} times as fast" if title == FLOAT32 else f"{speedups} times as fast as float32"
        where = f" at batch {_listed(sizes)}" if len(batches) > 1 else ""
        parts.append(f"{PHRASES.get(title, title)}{where} ({why})")
    unused = "" if any(title in QUANTIZED for title in batches) else "; the student is no faster"
    return f"Deploy here: {'; '.join(parts)}{unused}."


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def batch_sizes(text: str) -> list[int]:
    """Return the batch sizes that a text such as "1,8,32" lists.

    Raises:
        InputError: not whole numbers above zero.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--batches {text}: expected numbers of images, such as {BATCHES}")
    return list(dict.fromkeys(map(int, parts)))


def deployment_table(results: dict[str, Any]) -> Group:
    """The results of `benchmark_run` as a table, what is left out and the advice."""
    title = "{model}, {bits}, {processor}, {threads} threads".format(**results)
    batches = list(results["deploy"])
    table = Table("form", *(f"batch {batch}" for batch in batches), title=title, title_justify="left")
    for form, times in results["forms"].items():
        table.add_row(form, *(f"{times[batch]['processor_ms']:.2f} ({times[batch]['speedup']:.2f})" for batch in batches))
    left_out = [Text(f"left out: {form}: {reason}") for form, reason in results["left_out"].items()]
    unit = Text("processor time of an image in ms (times as fast as float32)")
    return Group(table, unit, *left_out, Text(results["advice"]))
