"""What README and the pages say exists: links, commands, names of Python, examples, words of llms.txt."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import vitdfq
from vitdfq import cli
from vitdfq.common.renamed import RENAMED_KEYS, RENAMED_LOSSES, RENAMED_OBSERVERS
from vitdfq.recipe.catalog import OLD_KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [README, *PAGES]
COMMANDS = typer.main.get_command(cli.app).commands
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.fixture(scope="module")
def made() -> set[str]:
    """The pages that the code makes, by path below docs/."""
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from reference import pages
    finally:
        sys.path.pop(0)
    return set(pages())


def blocks(path: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(path.read_text()) if language in languages]


def command_lines(path: Path) -> list[str]:
    joined = "\n".join(blocks(path, "bash")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("vitdfq ")]


LINES = [(path, line) for path in TEXTS for line in command_lines(path)]


@pytest.mark.parametrize(("path", "line"), LINES, ids=[line for _, line in LINES])
def test_a_command_is_one_that_the_command_line_takes(path, line):
    words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
    assert words[0] in COMMANDS, f"{path}: {line}"
    COMMANDS[words[0]].make_context(words[0], words[1:])  # raises on an unknown option or value


@pytest.mark.integration  # describes the zoo
@pytest.mark.parametrize("path", [*TEXTS, DOCS / "llms.txt"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_page(path, made):
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if "://" in target:
            continue
        file = (path.parent / target.partition("#")[0]).resolve()
        assert file.is_file() or str(file.relative_to(DOCS)) in made, f"{path}: {target}"


@pytest.fixture
def example_blocks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import example_blocks

    return example_blocks


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_a_page_shows_examples_as_their_files_have_them(path, example_blocks):
    page = path.read_text()
    assert page == example_blocks.with_examples(page), "python tools/example_blocks.py writes them"
    assert len(re.findall("<!-- from", page)) == len(example_blocks.SHOWN.findall(page))
    assert not re.search(r"8 *<-", page)  # an include, which only mkdocs would show


def test_every_example_is_shown_somewhere(example_blocks):
    shown = set().union(*(example_blocks.shown_files(path.read_text()) for path in PAGES))
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")} <= shown


def test_an_example_that_changed_replaces_the_block_below_its_comment(example_blocks, tmp_path, monkeypatch):
    monkeypatch.setattr(example_blocks, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("import b\n\nif b:\n    # [start:use]\n    b.use()\n    # [end:use]\n")
    page = "Text\n\n<!-- from a.py:use -->\n\n```python\nold()\n```\n\n```python\nkept()\n```\n"
    assert example_blocks.with_examples(page) == page.replace("old()", "b.use()")
    with pytest.raises(ValueError, match=r"a\.py has no section 'other'"):
        example_blocks.with_examples(page.replace(":use", ":other"))


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_names_of_the_package_in_python_blocks_exist(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vitdfq":
                assert node.attr in vitdfq.__all__, f"{path}: vitdfq.{node.attr}"


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_names_of_the_package_in_a_text_exist(path):
    for name in re.findall(r"`vitdfq\.(\w+)\(?", path.read_text()):
        assert name in vitdfq.__all__ or (ROOT / "vitdfq" / name).is_dir(), f"{path}: vitdfq.{name}"
    for file in re.findall(r"`((?:vitdfq|tests|benchmarks|tools|examples|recipes)/[\w/.]+)", path.read_text()):
        assert (ROOT / file).exists() or "/my_" in file, f"{path}: {file}"  # my_loss.py is the reader's


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_yaml_blocks_are_yaml(path):
    for block in blocks(path, "yaml"):
        yaml.safe_load(block)


@pytest.mark.integration
def test_the_navigation_names_every_page(made):
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/]+\.md", text))
    methods = {path for path in made if path.startswith("reference/methods/")}  # listed by tools/mkdocs_hook.py
    assert named == {str(path.relative_to(DOCS)) for path in PAGES} | made - methods


def test_the_readme_is_short_and_has_the_commands_of_ci():
    text = README.read_text()
    assert len(text.split()) < 1500 and len(text.splitlines()) <= 120
    for command in ("pip install -e '.[report]' && vitdfq run recipes/quickstart.yaml", "pip install -e '.[test]' && pytest"):
        assert f"```\n{command}\n```" in text
    assert text.count("<!-- results -->") == text.count("<!-- /results -->") == 1  # tools/results.py writes between them


def test_llms_txt_links_every_page():
    linked = set(LINK.findall((DOCS / "llms.txt").read_text()))
    assert {str(path.relative_to(DOCS)) for path in PAGES} <= linked


def test_llms_txt_names_files_and_old_names():
    text = (DOCS / "llms.txt").read_text()
    for file in re.findall(r"`([\w/]+/|[A-Z]+\.md)`", text):
        assert (ROOT / file).exists(), file
    old = {tuple(cell.strip() for cell in line.split("|")[2:4]) for line in text.splitlines() if line.startswith("| ")}
    renamed = RENAMED_KEYS | RENAMED_LOSSES | RENAMED_OBSERVERS | OLD_KINDS
    assert set(renamed.items()) <= old
