"""Results on stdout, for people or for programs."""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from vitdfq.runtime import distributed


class Format(StrEnum):
    human = "human"
    json = "json"


def print_result(content: Any, format: Format, render: Callable[[], Any]) -> None:
    """Print a result on stdout, as JSON or as `render()` returns it; of several processes the main one prints."""
    if not distributed.is_reporting():
        return
    if format is Format.json:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    from rich.console import Console

    # rich wraps lines at the width of the terminal; a file or pipe has none
    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(render(), markup=False)
