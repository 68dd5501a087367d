"""The pages that are made from the code say what the code has."""

import sys
from pathlib import Path

import pytest

from vitdfq.calibration import STEPS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.recipe.measured import measured_tables
from vitdfq.recipe.recipe import Recipe
from vitdfq.recipe.signature import keywords
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.presets import ABSTRACT

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.integration  # describes the zoo


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    sys.path.insert(0, str(TOOLS))
    try:
        from reference import pages
    finally:
        sys.path.pop(0)
    return pages()


def test_each_method_has_a_page_with_source_command_and_losses(pages):
    for name, method in METHODS.items():
        page = pages[f"reference/methods/{name}.md"]
        assert method.summary in page and f"method: {name}}}" in page and "**Source.**" in page
        assert all(f"`{loss}`" in page for loss in method.losses)
        assert (method.reading in page) and f"[`{name}`]({name}.md)" in pages["reference/methods/index.md"]


def test_each_method_has_a_text_a_picture_and_its_numbers(pages, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from method_pages import PICTURES, method_texts

    texts, rows = method_texts(), measured_tables()["methods"]["rows"]
    assert set(texts) == set(METHODS)
    for name in METHODS:
        page = pages[f"reference/methods/{name}.md"]
        assert texts[name] in page and f"images/methods/{name}.webp" in page
        assert all(f"| {number} |" in page for number in rows[name]) if name in rows else "Not measured" in page
    pictures = list(PICTURES.glob("*.webp"))
    assert {path.stem for path in pictures} == set(METHODS)  # tools/pictures.py draws them
    assert sum(path.stat().st_size for path in [*pictures, PICTURES.parent / "scenes.webp"]) < 1_000_000


def test_a_method_of_an_abstract_says_so(pages):
    for name, method in METHODS.items():
        if "our reading of the abstract" in method.summary:
            assert ABSTRACT in pages[f"reference/methods/{name}.md"], name


def test_a_source_is_a_link(pages):
    assert "**Source.** PSAQ-ViT, [arXiv 2203.02250](https://arxiv.org/abs/2203.02250)" in pages["reference/methods/psaq.md"]
    assert "**Source.** This library." in pages["reference/methods/scenes.md"]


def test_every_key_and_name_is_there(pages):
    keys = [*keywords(Recipe), *keywords(SynthesisOptions)]
    for page, names in {"recipe": keys, "losses": LOSSES, "steps": STEPS, "quantizers": [*QUANTIZERS, *POLICIES]}.items():
        text = pages[f"reference/{page}.md"]
        assert all(f"`{name}`" in text for name in names), page


def test_tables_have_as_many_cells_as_their_head(pages):
    for path, text in pages.items():
        width = 0
        for line in text.splitlines():
            cells = line.replace("\\|", "").count("|") if line.startswith("| ") else 0
            assert not width or not cells or cells == width, f"{path}: {line}"
            width = cells
