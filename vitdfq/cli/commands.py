"""The commands. They import torch and the rest of the library when they run, so that `--help` is fast."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

import vitdfq
from vitdfq.cli.arguments import (
    AnalyzeOutOption,
    BudgetOption,
    CompareOutOption,
    ExportFormat,
    Format,
    FormatOption,
    FreshOption,
    OutOption,
    Processor,
    QuietOption,
    RecipeArgument,
    RunArgument,
    Runtime,
    SetOption,
    SourceArgument,
    VerboseOption,
    complete_recipe,
)
from vitdfq.cli.examples import epilog
from vitdfq.cli.results import exit_with_error, names_table, print_result
from vitdfq.common.errors import InputError

app = typer.Typer(
    name="vitdfq",
    help="Quantize vision transformers without data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup would swallow brackets in help texts
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(vitdfq.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # eager: it needs no command
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Quantize vision transformers without data."""


@app.command(epilog=epilog("run"))
def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its estimated cost; do nothing.")] = False,
    verbose: VerboseOption = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """The main job: synthesize, quantize, calibrate, evaluate, save."""
    if dry_run:
        from vitdfq.cost.dry_run import plan
        from vitdfq.recipe import load_recipe

        planned = plan(load_recipe(recipe, overrides or []), out=str(out) if out else None)
        print_result(planned.to_dict(), format, lambda: planned.render(all_sites=verbose))
        return
    run_until("metrics", recipe, out, overrides, fresh, format)


@app.command(epilog=epilog("synthesize"))
def synthesize(
    recipe: RecipeArgument,
    out: OutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Only the synthetic images, and their grid."""
    run_until("images", recipe, out, overrides, fresh, format)


@app.command(epilog=epilog("calibrate"))
def calibrate(
    recipe: RecipeArgument,
    out: OutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Up to the packed checkpoint, without evaluation."""
    run_until("student", recipe, out, overrides, fresh, format)


@app.command(epilog=epilog("evaluate"))
def evaluate(
    run: RunArgument,
    overrides: SetOption = None,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Evaluate a saved checkpoint beside its teacher; `--set evaluate.dataset=...` chooses other images than its recipe."""
    from vitdfq.workflow.run import evaluate_run

    metrics = evaluate_run(run, overrides or [])
    print_result(metrics, format, lambda: "\n".join(f"{key:15} {value}" for key, value in metrics.items()))


@app.command(epilog=epilog("compare"))
def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...|RUN...",
            help="Recipes that differ in their images only, or folders of finished runs.",
            autocompletion=complete_recipe,
        ),
    ],
    out: CompareOutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Several kinds of images on one model, in one table (`compare.methods` in a recipe names more); or finished runs."""
    from vitdfq.reports.runs_table import markdown
    from vitdfq.reports.tables import comparison_table
    from vitdfq.workflow.compare import compare
    from vitdfq.workflow.compare_runs import compare_runs, run_folders

    if folders := run_folders(recipes):
        if overrides or fresh:
            raise InputError("compare: --set and --fresh are about recipes; finished runs are compared as they are")
        runs = compare_runs(folders, out=out)
        print_result(runs, format, lambda: markdown(runs))
        return
    content = compare(recipes, out=out, overrides=overrides or [], fresh=fresh)
    print_result(content, format, lambda: comparison_table(content))
    if content["failed"]:
        exit_with_error(f"{len(content['failed'])} of {len(content['rows'])} rows failed: {', '.join(content['failed'])}", 1)


@app.command(epilog=epilog("analyze"))
def analyze(
    source: SourceArgument,
    budget: BudgetOption = None,
    out: AnalyzeOutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """What each site costs; bits by layer for a budget, in mixed.yaml; `--set evaluate.num_images=N` measures accuracy too."""
    from vitdfq.reports.analysis_tables import rendered
    from vitdfq.workflow.analyze import analyze

    content = analyze(source, out=out, overrides=overrides or [], fresh=fresh, budget=budget)
    print_result(content, format, lambda: rendered(content))


@app.command(epilog=epilog("bench"))
def bench(
    target: SourceArgument = "quickstart",
    overrides: SetOption = None,
    batches: Annotated[str | None, typer.Option("--batches", help="Of a run: images in one call (default: 1,8,32).")] = None,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """What a recipe's models and steps cost on this machine; of a run, which form of its model to deploy here."""
    from vitdfq.cost.benchmark import benchmark_table, benchmark_target

    results = benchmark_target(target, overrides or [], batches)
    print_result(results, format, lambda: benchmark_table(results))
    logging.getLogger("vitdfq").info("bench writes no file; --format json prints the same for one")


@app.command(epilog=epilog("export"))
def export(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: RUN/onnx/model.onnx.")] = None,
    format: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.onnx,
    runtime: Annotated[Runtime, typer.Option("--runtime", help="Whose integer products it is for.")] = Runtime.onnxruntime,
    cpu: Annotated[Processor, typer.Option("--cpu", help="avx2: uint8 in place of int8, for x86 without VNNI.")] = Processor.vnni,
    quiet: QuietOption = False,
) -> None:
    """A checkpoint as a file for other runtimes, compared with the student before it is written."""
    from vitdfq.onnx import export, summary

    result = export(run, out, format=str(format), runtime=str(runtime), cpu=str(cpu))
    print_result(result, Format.human, lambda: summary(result))


@app.command(epilog=epilog("push"))
def push(
    run: RunArgument,
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Hub repository; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private repository.")] = False,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Publish a finished run on the Hugging Face Hub, in one commit; the token comes from HF_TOKEN or `hf auth login`."""
    from vitdfq.hub.publish import push

    result = push(run, repo, private=private)
    print_result(result, format, lambda: f"{result['url']}\n{len(result['files'])} files, commit {result['commit']}")


@app.command(epilog=epilog("convert"))
def convert(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A .pth, .pt, .bin, .ckpt, .pth.tar or .safetensors file, or its folder.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write, for local-dir:DIR as model.name.")],
    arch: Annotated[str | None, typer.Option("--arch", metavar="NAME", help="timm's name of the model.")] = None,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="Entry of a training checkpoint, if not the usual.")] = "",
    arguments: Annotated[
        list[str] | None, typer.Option("--set", metavar="key=value", help="Argument of timm.create_model: img_size=384.")
    ] = None,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Your own checkpoint becomes a folder of config.json and model.safetensors; no code in it is run."""
    from vitdfq.models.convert import convert, summary
    from vitdfq.recipe.reader import arguments_of

    result = convert(file, out, arch, key=key, **arguments_of(arguments or []))
    print_result(result, format, lambda: summary(result))


@app.command(epilog=epilog("images"))
def images(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the PNG files; new or empty.")],
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """A run's synthetic images as PNG files, named by index and target class."""
    from vitdfq.workflow.images import write_images

    written = write_images(run, out)
    print_result(written, format, lambda: f"{len(written['files'])} images written to {written['folder']}")


@app.command(epilog=epilog("info"))
def info(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A folder, or OWNER/NAME[@REVISION] on the Hub.")],
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """What is inside a saved checkpoint: bits by layer, size, accuracy, how to make it again."""
    from vitdfq.checkpoint.describe import summary
    from vitdfq.checkpoint.save_load import describe

    description = describe(checkpoint)
    print_result(description, format, lambda: summary(description))


@app.command(name="list", epilog=epilog("list"))
def list_names(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="recipes, zoo, methods, losses, ... (default: all)")] = None,
    format: FormatOption = Format.human,
    quiet: QuietOption = False,
) -> None:
    """Every name that a recipe can use: what it is, and what was measured with it."""
    from vitdfq.recipe.catalog import entries
    from vitdfq.recipe.measured import measured

    catalog = entries(kind)
    print_result({kind: list(choices) for kind, choices in catalog.items()}, format, lambda: names_table(catalog, measured()))


@app.command(epilog=epilog("schema"))
def schema(quiet: QuietOption = False) -> None:
    """The JSON schema of recipes, for editors that complete and check YAML."""
    from vitdfq.recipe.schema import recipe_schema

    print_result(recipe_schema(), Format.json, str)


def run_until(until: str, recipe: str, out: Path | None, overrides: list[str] | None, fresh: bool, format: Format) -> None:
    """Run a recipe up to the stage `until` and print the metrics."""
    from vitdfq.reports.tables import summary_table
    from vitdfq.workflow.run import run

    metrics = run(recipe, out=out, overrides=overrides or [], fresh=fresh, until=until)
    is_complete = "student" in metrics
    print_result(metrics, format, lambda: summary_table(metrics) if is_complete else json.dumps(metrics, indent=2))
