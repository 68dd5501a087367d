"""What docstrings say: the first sentence, and a line for each argument. Help, the schema and the docs are made of them."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

SHAPE = re.compile(r"\s*\([A-Z0-9, ]+,[A-Z0-9, ]*\)\.?$")  # at the end of a sentence: "(B,)", "(3, H, W)"
SECTIONS = re.compile(r"^(?:Args|Attributes):\n((?:[ ]+.*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \w+)*): (.+(?:\n {5,}.+)*)", re.MULTILINE)


def first_sentence(documented: Callable[..., Any]) -> str:
    """Return the first sentence of a docstring, without "Return" and the shape at its end; a partial's arguments follow it."""
    if isinstance(documented, partial):
        arguments = ", ".join(f"{name}={value}" for name, value in documented.keywords.items())
        return f"{first_sentence(documented.func)} ({arguments})"
    paragraph = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)\s", SHAPE.sub("", paragraph))[0].removeprefix("Return ").removesuffix(".")
    begins_with_word = re.match(r"[a-z]+ ", sentence)  # not with a formula
    return sentence[:1].upper() + sentence[1:] if begins_with_word else sentence


def arguments_of(documented: Callable[..., Any]) -> dict[str, str]:
    """Return name -> description, in one line, of the arguments or attributes that a docstring describes.

    Args:
        documented: a function or a class. For a function that takes its keywords from a dataclass (`takes_options`), the
            dataclass describes them.
    """
    text = inspect.getdoc(getattr(documented, "options_class", documented)) or ""
    described: dict[str, str] = {}
    for section in SECTIONS.findall(text + "\n"):
        for names, description in ENTRY.findall(section):
            line = " ".join(description.split())
            described |= {name.strip("* "): line for name in names.split(",")}
    return described
