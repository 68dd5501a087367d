"""Pages of the documentation that are made from the code: `pages()` returns path -> Markdown. mkdocs is not needed for it.

`python tools/reference.py DIR` writes them to a folder; the site gets them from `tools/mkdocs_hook.py`.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer
from markdown_parts import cell, code, sources, table
from method_pages import method_page, methods_page

import vitdfq
from vitdfq import cli
from vitdfq.calibration import STEPS
from vitdfq.cli.examples import EXAMPLES
from vitdfq.common.docstrings import arguments_of
from vitdfq.evaluation import EvaluationOptions
from vitdfq.quantization.options import OPTIONS, Grid
from vitdfq.quantization.quantizers import quantizer_class
from vitdfq.recipe.catalog import entries
from vitdfq.recipe.recipe import Recipe
from vitdfq.recipe.sections import SECTIONS
from vitdfq.recipe.signature import defaults, keywords
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.options import SynthesisOptions

MADE = "<!-- This page is made from the code by tools/reference.py. -->\n\n"
EMPTY = inspect.Parameter.empty


def pages() -> dict[str, str]:
    """Return path below docs/ -> Markdown, in the order of the navigation."""
    made = {
        "reference/recipe.md": recipe_page(),
        "reference/command_line.md": command_line_page(),
        "reference/python.md": python_page(),
        "reference/losses.md": losses_page(),
        "reference/quantizers.md": quantizers_page(),
        "reference/steps.md": steps_page(),
        "reference/methods/index.md": methods_page(),
        **{f"reference/methods/{name}.md": method_page(name, METHODS[name]) for name in sorted(METHODS)},
    }
    return {path: MADE + text.rstrip() + "\n" for path, text in made.items()}


def recipe_page() -> str:
    """All keys of a recipe, section by section, with types and defaults."""
    plain = {name: type_ for name, type_ in keywords(Recipe).items() if name not in SECTIONS}
    parts = [
        "# Keys of a recipe",
        "A recipe is a YAML file. Each section holds the keyword arguments of one function. A key or a name that is not known "
        "ends the command in one line with the nearest choice. `vitdfq schema` prints the same as JSON schema for editors.",
        "## Top level",
        _options_table(plain | {"extends": str}, Recipe, {"extends": "The recipe that this one changes: a file, or a name."}),
    ]
    descriptions = arguments_of(Recipe)
    for name, section in SECTIONS.items():
        known = {key: type_ for key, type_ in keywords(section.call, "name", "repo").items() if key != "**"}
        parts += [f"## `{name}`", _sentence(descriptions[name]), _options_table(known, section.call)]
        if name == "quantize":
            options = {option: get_type_hints(Grid)[option] for role in OPTIONS.values() for option in role}
            parts += ["Options of a role (`weight`, `activation`, `gelu`, `softmax`):", _options_table(options, Grid)]
    return "\n\n".join(parts)


def command_line_page() -> str:
    """Every command with its arguments, options and examples."""
    group: Any = typer.main.get_command(cli.app)
    parts = ["# Command line", f"`vitdfq COMMAND --help` shows the same. {group.help}"]
    for name, command in group.commands.items():
        rows = [(cell(_spelling(parameter)), cell(parameter.help or "")) for parameter in command.params]
        parts += [f"## `vitdfq {name}`", str(command.help), table(("argument", "meaning"), rows), code("bash", EXAMPLES[name])]
    return "\n\n".join(parts)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    flag = max(parameter.opts, key=len)
    return f"`{flag}`" if parameter.is_flag else f"`{flag} {parameter.metavar or parameter.name.upper()}`"


def python_page() -> str:
    """The names of `vitdfq`, for mkdocstrings to fill in."""
    parts = [
        "# Python",
        "Names are imported when they are first used. The library prints nothing: messages go to the logger `vitdfq`.",
    ]
    values = [getattr(vitdfq, name) for name in vitdfq.__all__ if not name.startswith("_")]
    options = "    options:\n      heading_level: 2\n      show_root_full_path: false"
    for value in [*values, SynthesisOptions, EvaluationOptions]:  # two functions take their keywords from a dataclass
        parts.append(f"::: {value.__module__}.{value.__qualname__}\n{options}")
    return "\n\n".join(parts)


def losses_page() -> str:
    """Every loss with its options, its docstring and its sources."""
    parts = [
        "# Losses of synthesis",
        "A loss returns one value for each view of an image. `losses: {name: {weight: 1.0, option: value}}` adds it to a preset; "
        "`after` (share of the run before its first step) and `every` (steps) say when it is computed.",
    ]
    for name, loss in sorted(LOSSES.items()):
        options = {
            parameter.name: parameter.default
            for function, inputs in loss.needs()
            for parameter in list(inspect.signature(function).parameters.values())[inputs:]
        }
        facts = [f"Options: {', '.join(f'`{option}` ({default!r})' for option, default in options.items())}."] if options else []
        facts += ["It compares images, so they are made in groups of a fixed size."] if loss.compares.__name__ != "never" else []
        facts += ["It needs a teacher that gives classes."] if loss.needs_classes else []
        facts += [f"Used by: {', '.join(users)}."] if (users := _users(name)) else []
        parts += [f"## `{name}`", code("text", [_docstring(loss.function)]), *facts, sources(loss.function)]
    return "\n\n".join(filter(None, parts))


def _users(loss: str) -> list[str]:
    return [f"[{name}](methods/{name}.md)" for name, method in sorted(METHODS.items()) if loss in method.losses]


def quantizers_page() -> str:
    """Quantizers, observers and policies."""
    quantizers, names = entries("quantizers")["quantizers"], ("weights", "inputs", "gelu", "operands", "softmax")
    rows = [
        (
            f"`{name}`",
            text,
            ", ".join(kind for kind in names if kind in quantizer_class(name).suits),
            sources(quantizer_class(name)),
        )
        for name, text in quantizers.items()
    ]
    return "\n\n".join(
        [
            "# Quantizers, observers, policies",
            "A policy chooses a quantizer for each role of a site; `quantize.weight`, `activation`, `gelu`, `softmax` and "
            "`overrides` change its choice.",
            "## Policies",
            table(("policy", "what it is"), _named(entries("policies")["policies"])),
            "## Quantizers",
            table(("quantizer", "what it is", "may round", "source"), rows),
            "## Observers",
            "An observer proposes the ranges of a uniform quantizer; the choice among them is by error.",
            table(("observer", "ranges"), _named(entries("observers")["observers"])),
            "## Preparation",
            "Transforms change the float model, not its function.",
            table(("transform", "what it does"), _named(entries("transforms")["transforms"])),
        ]
    )


def steps_page() -> str:
    """Every calibration step with its options."""
    parts = [
        "# Calibration steps",
        "`calibrate: {steps: [...]}` lists names, or `{name: {option: value}}`. Without a list the bits and the effort decide.",
        table(("effort", "what it contains"), _named(entries("efforts")["efforts"])),
    ]
    for name, step in STEPS.items():
        text = _docstring(step.apply).partition("\n\nArgs:")[0]
        parts += [f"## `{name}`", text, _options_table(keywords(step.options), step.options), sources(step.apply)]
    return "\n\n".join(filter(None, parts))


def _options_table(known: dict[str, Any], target: Callable[..., Any], more: dict[str, str] | None = None) -> str:
    if not known:
        return "No options."
    descriptions, given = arguments_of(target) | (more or {}), defaults(target)
    rows = [
        (f"`{name}`", f"`{_type(type_)}`", _default(given.get(name, EMPTY)), cell(descriptions.get(name, "")))
        for name, type_ in known.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type(member) for member in get_args(annotation))
    words = {int: "int", float: "float", str: "text", bool: "bool", type(None): "null", Any: "any"}
    return words.get(annotation) or ("list" if get_origin(annotation) is list else "mapping")


def _default(value: Any) -> str:
    if value is EMPTY or not isinstance(value, str | int | float | bool | type(None)):
        return ""
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _named(lines: dict[str, str]) -> Iterable[tuple[str, str]]:
    return [(f"`{name}`", cell(text)) for name, text in lines.items()]


def _docstring(documented: Any) -> str:
    while isinstance(documented, partial):
        documented = documented.func
    return inspect.getdoc(documented) or ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    for path, text in pages().items():
        file = Path(sys.argv[1]) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
