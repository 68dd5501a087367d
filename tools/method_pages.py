"""The pages of synthesis methods: a table of all, and one for each; made by `reference.py`."""

import re
from pathlib import Path

from markdown_parts import cell, code, sources, table

from vitdfq.recipe.catalog import entries
from vitdfq.recipe.measured import TEACHER, measured_tables
from vitdfq.synthesis import LOSSES
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.resolve import parts_of

PICTURES = Path(__file__).parents[1] / "docs" / "images" / "methods"  # of tools/pictures.py
TEXTS = Path(__file__).with_name("method_texts.md")


def methods_page() -> str:
    """All presets in one table, with how near students of their images come to the teacher."""
    measured = measured_tables()["methods"]
    rows = [
        (f"[`{name}`]({name}.md)", cell(text), *(measured["rows"].get(name, [""])[at] for at in (0, -1)))
        for name, text in entries("methods")["methods"].items()
    ]
    return "\n\n".join(
        [
            "# Synthesis methods",
            "A method is losses, targets, a schedule and an engine. `synthesize: {method: NAME}` chooses one; every other key of "
            '`synthesize` changes it. "X-style" marks a paper whose equations were not available to us.',
            "Beside each stand the top-1 of `zoo:deit` at W4A4, in percent, of students calibrated on 32 of its images, and "
            "KL relative to that of students of `vitdfq`, over several models: "
            "[Which images are best](../../results/images.md).",
            table(("method", "what it asks of an image", "top-1", "KL"), rows),
        ]
    )


def method_page(name: str, method: Method) -> str:
    """One preset: source, what it does, its reading, its command, what was measured, a picture, its losses."""
    parts = [
        f"# `{name}`",
        f"{method.summary}.",
        f"**Source.** {sources(method.summary) or 'This library.'}",
        method_texts()[name],
        _paragraph(method),
    ]
    if method.reading:
        parts.append(f"**Our reading.** {method.reading}")
    parts.append(code("bash", [f"vitdfq synthesize quickstart --set 'synthesize={{method: {name}}}' --out runs/{name}"]))
    parts += ["## Expected numbers", _expected(name)]
    if (PICTURES / f"{name}.webp").is_file():
        parts += [
            "## Images",
            f"![Eight images of {name}](../../images/methods/{name}.webp)",
            "The first eight images for `zoo:deit` (28 pixels, ten classes of clothes), seed 0, with the teacher's class and "
            f"confidence; {'100 steps' if method.steps else 'no steps'}. `python tools/pictures.py methods`",
        ]
    if method.losses:
        rows = [
            (
                f"[`{loss}`](../losses.md#{loss})",
                ", ".join(f"{key} {value}" for key, value in options.items()),
                sources(LOSSES[loss].function),
            )
            for loss, options in method.losses.items()
        ]
        parts += ["## Losses", table(("loss", "settings", "source"), rows)]
    return "\n\n".join(parts)


def method_texts() -> dict[str, str]:
    """The idea of each preset in plain words, by name."""
    sections = re.split(r"^## (\w+)\n", TEXTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.strip() for name, text in zip(sections[::2], sections[1::2], strict=True)}


def _expected(name: str) -> str:
    """The row of a preset in the table of methods as a column, beside the float models and real images; or that there is none."""
    measured = measured_tables()["methods"]
    if name not in measured["rows"]:
        return "Not measured in the [comparison of methods](../../results/images.md)."
    names = (TEACHER, name, list(measured["rows"])[-1])
    rows = zip(measured["columns"], *(measured["rows"][row] for row in names), strict=True)
    how = f"{measured['date']}, commit {measured['commit']}; {measured['machine']}. `{measured['command']}`"
    what = "Top-1 in percent of students calibrated on 32 images; KL relative to students of `vitdfq`"
    head = ("student", TEACHER, f"`{name}`", names[-1])
    return f"{what}. {how}, explained in [Which images are best](../../results/images.md).\n\n" + table(head, rows)


def _paragraph(method: Method) -> str:
    """What the fields of a preset say, in sentences."""
    if not method.steps:
        chosen = f", the one of {method.candidates} that is farthest from the others by the teacher's features" * (
            method.candidates > 1
        )
        return f"Nothing is optimized: images are rendered by the program `{method.start}`{chosen}."
    engine = {
        "images": f"The {'pixels' if method.parametrization == 'pixels' else 'weights of a small decoder'} are optimized for "
        f"{method.steps:,} steps, from `{method.start}`.",
        "generator": f"A generator is trained for {method.steps:,} steps, and draws the images.",
    }[method.engine]
    sentences = [engine, f"Targets are `{method.labels}` labels."]
    sentences += [f"An image has up to {method.max_regions} regions with a class of their own."] * (method.max_regions > 1)
    sentences += [f"Patches leave the pass at {', '.join(map(str, method.prune_at))} of the run."] * bool(method.prune_at)
    sentences += ["Images 2i and 2i + 1 have the same classes and draws."] * method.pairs
    others = ", ".join(f"[`{part}`]({part}.md) {method.mix[part]:.0%}" for part in parts_of(method) if part in method.mix)
    sentences += [f"Shares of the images are made by other presets: {others}."] * bool(others)
    rendered = method.rendered
    sentences += [f"Where they suit the teacher, images of [`{rendered}`]({rendered}.md) take the place of all."] * bool(rendered)
    sentences += ["With a teacher that gives features other losses stand in their place."] * bool(method.feature_losses)
    return " ".join(sentences)
