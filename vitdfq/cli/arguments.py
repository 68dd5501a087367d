"""The arguments and options that several commands share."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Format = StrEnum("Format", ["human", "json"])
ExportFormat = StrEnum("ExportFormat", ["onnx"])
Runtime = StrEnum("Runtime", ["onnxruntime", "openvino", "tensorrt"])
Processor = StrEnum("Processor", ["vnni", "avx2"])


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes whose names begin so; a shell that gets none completes the names of files."""
    from vitdfq.recipe.find import packaged_recipes

    return [name for name in packaged_recipes() if name.startswith(incomplete)]


RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Path of a YAML file, or the name of a recipe.", autocompletion=complete_recipe),
]
SourceArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE|RUN", help="A recipe's path or name, or the folder of a run.", autocompletion=complete_recipe),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
AnalyzeOutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/analyze_NAME, RUN/analysis.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", metavar="KIND=N", help="size=9MB, average-bits=4 or bops=1.2G.")]
CompareOutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/compare_NAMES.")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for results (default: runs/RECIPE_NAME).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change a recipe key; may be repeated.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="With --dry-run: a row for each site.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Remove the results of earlier runs from the folder first.")]
FormatOption = Annotated[Format, typer.Option("--format", help="What to print on stdout.")]


def set_up_messages(context: typer.Context, quiet: bool) -> None:
    """Called for the option before the command, and then for the command's own: either makes it quiet."""
    from vitdfq.runtime.progress import show_messages

    if quiet or context.parent is None:
        show_messages(logging.WARNING if quiet else logging.INFO)


QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, only results and errors.", callback=set_up_messages, expose_value=False),
]
