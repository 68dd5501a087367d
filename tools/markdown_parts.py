"""Parts of Markdown pages that are made from the code: tables, blocks of code, sources."""

from collections.abc import Iterable
from typing import Any

from vitdfq.common.sources import cited, reference


def sources(*documented: Any) -> str:
    return "; ".join(map(reference, cited(*documented)))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("-",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(language: str, lines: Iterable[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def cell(text: str) -> str:
    """Text inside a table, where a bar would begin a new cell."""
    return text.replace("|", "\\|")
