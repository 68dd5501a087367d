"""Results on stdout and errors on stderr; of several processes the main one prints."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from vitdfq.cli.arguments import Format
from vitdfq.common.errors import VitdfqError
from vitdfq.runtime import distributed


def print_result(content: Any, format: Format, render: Callable[[], Any]) -> None:
    """Print a result on stdout, as JSON or as `render()` returns it; of several processes the main one prints."""
    if not distributed.is_reporting():
        return
    if format is Format.json:
        typer.echo(json.dumps(content, indent=2))
        return
    from rich.console import Console

    rendered = render()
    # rich wraps lines at the width of the terminal; a file or pipe has none. Text stays as it is: it may be pasted elsewhere.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    console.print(rendered, markup=False, soft_wrap=isinstance(rendered, str))


def names_table(catalog: dict[str, dict[str, str]], measured: dict[str, dict[str, str]]) -> Any:
    """Return names and descriptions as two columns, each kind under its own heading; measured numbers follow a description.

    Args:
        catalog: kind -> name -> description.
        measured: kind -> name -> what was measured with it, for some.
    """
    from rich.table import Table
    from rich.text import Text  # brackets in a description are no markup

    table = Table.grid(padding=(0, 2, 0, 0))
    for kind, entries in catalog.items():
        if table.rows:
            table.add_row()
        table.add_row(kind)
        for name, description in entries.items():
            table.add_row(Text(f"  {name}"), Text(description))
            if numbers := measured.get(kind, {}).get(name):
                table.add_row("", Text(f"expected: {numbers}", style="dim"))
    return table


def exit_with_error(message: object, exit_code: int, error: BaseException | None = None) -> None:
    """Print one line on stderr and exit.

    The errors of `vitdfq.common.errors` occur in every process, so only the main one prints them; others may not.
    """
    if error is not None and os.environ.get("VITDFQ_DEBUG"):
        raise error
    if distributed.is_reporting() or not isinstance(message, VitdfqError):
        prefix = "" if distributed.is_reporting() else f"process {os.environ['RANK']}: "
        typer.echo(f"error: {prefix}" + " ".join(str(message).split()), err=True)
    sys.stderr.flush()
    raise SystemExit(exit_code)
