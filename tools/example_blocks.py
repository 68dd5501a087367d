"""Write the examples into the documentation: python tools/example_blocks.py

A page shows a file, or a section of it, in the block of code below a comment: `<!-- from examples/quickstart.py:measure -->`.
In the file a section stands between the lines `# [start:measure]` and `# [end:measure]`. The pages hold a copy, not an include,
so that they can be read without mkdocs; `tests/docs/test_pages.py` compares the copies with the files.
"""

import re
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
SHOWN = re.compile(r"^(<!-- from ([\w/.]+)(?::(\w+))? -->\n+```\w+\n)(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(file: str, section: str | None) -> str:
    """Return the text of a file of the repository, or of one section of it, without common indentation.

    Raises:
        ValueError: the file has no such section.
    """
    text = (ROOT / file).read_text()
    if section:
        lines = re.search(rf"^ *# \[start:{section}\].*?\n(.*?)^ *# \[end:{section}\]", text, re.MULTILINE | re.DOTALL)
        if lines is None:
            raise ValueError(f"{file} has no section {section!r}")
        text = lines[1]
    return dedent(text).strip("\n") + "\n"


def with_examples(page: str) -> str:
    """Return the text of a page with the examples as the files have them now."""
    return SHOWN.sub(lambda block: f"{block[1]}{example(block[2], block[3])}```", page)


def shown_files(page: str) -> set[str]:
    """The files that a page shows."""
    return {block[2] for block in SHOWN.finditer(page)}


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").rglob("*.md")):
        path.write_text(with_examples(path.read_text()))
