"""Hook of mkdocs: adds the pages that `reference.py` makes from the code, and lists them in the navigation."""

import sys
from functools import cache
from pathlib import Path
from typing import Any


@cache
def made_pages() -> dict[str, str]:
    """The pages; they are made once, which imports torch."""
    sys.path.insert(0, str(Path(__file__).parent))  # here: mkdocs undoes a change of it after a hook is imported
    from reference import pages

    return pages()


def on_config(config: Any) -> Any:
    """Put a page for each method at the end of the section "Reference"."""
    section = next(entry["Reference"] for entry in config["nav"] if "Reference" in entry)
    methods = [path for path in made_pages() if path.startswith("reference/methods/")]
    section.append({"Synthesis methods": methods})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those of the folder docs/."""
    from mkdocs.structure.files import File

    for path, text in made_pages().items():
        files.append(File.generated(config, path, content=text))
    return files
