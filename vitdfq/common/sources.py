"""The works that this library's methods come from, by arXiv number or DOI, and which of them a text cites."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

SOURCES = {  # identifier -> the name that the work is known by
    # synthesis
    "2106.05963": "dead leaves (Learning to See by Looking at Noise)",
    "2203.02250": "PSAQ-ViT",
    "2209.05687": "PSAQ-ViT V2",
    "2412.16553": "SARDFQ",
    "2407.20021": "MimiQ",
    "2606.04373": "MaskAQ",
    "10.1007/978-981-99-8543-2_17": "FDD",
    "2510.27186": "SMI",
    "2310.03661": "RIS",
    "2301.07266": "ACQ",
    "10.1109/TCSVT.2024.3399311": "AGM",
    "2101.08430": "GZNQ",
    "2003.03603": "GDFQ",
    "2001.00281": "ZeroQ",
    "1912.08795": "DeepInversion",
    "1711.10925": "deep image prior",
    # preparation
    "2103.17239": "LayerScale",
    "2404.00456": "QuaRot",
    "2405.16406": "SpinQuant",
    "2401.15024": "SliceGPT",
    # quantizers
    "2111.12293": "PTQ4ViT",
    "2111.13824": "FQ-ViT",
    "2212.08254": "RepQ-ViT",
    "2407.12951": "AdaLog",
    "2311.10126": "I&S-ViT",
    # calibration
    "2211.10438": "SmoothQuant",
    "2210.17323": "GPTQ",
    "2102.05426": "BRECQ",
    "2203.05740": "QDrop",
    "2004.10568": "AdaRound",
    "1906.04721": "DFQ",
}
ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{5}(?!\d)")
DOI = re.compile(r"(?<![\w.])10\.\d{4,}/[^\s,;:\"]*[\w)]")


def cited(*texts: str | Callable[..., Any]) -> dict[str, str]:
    """Return identifier -> name of the works that texts or docstrings cite, in their order.

    Args:
        texts: a text; or a function or class, whose docstring counts, and that of its file.
    """
    read = " ".join(text if isinstance(text, str) else _documentation(text) for text in texts)
    matches = sorted([*ARXIV.finditer(read), *DOI.finditer(read)], key=lambda match: match.start())
    identifiers = dict.fromkeys(_balanced(match.group()) for match in matches)
    return {identifier: SOURCES[identifier] for identifier in identifiers}


def link(identifier: str) -> str:
    """Return the address of a work."""
    return f"https://arxiv.org/abs/{identifier}" if ARXIV.fullmatch(identifier) else f"https://doi.org/{identifier}"


def reference(identifier: str) -> str:
    """Return a work as it is cited in a text: "PSAQ-ViT, arXiv 2203.02250", in Markdown."""
    kind = "arXiv" if ARXIV.fullmatch(identifier) else "doi"
    return f"{SOURCES[identifier]}, [{kind} {identifier}]({link(identifier)})"


def _documentation(documented: Callable[..., Any]) -> str:
    while isinstance(documented, partial):
        documented = documented.func
    return f"{inspect.getdoc(inspect.getmodule(documented))} {inspect.getdoc(documented)}"


def _balanced(identifier: str) -> str:
    """A DOI may hold brackets, and stand in brackets."""
    return identifier[:-1] if identifier.endswith(")") and identifier.count(")") > identifier.count("(") else identifier
