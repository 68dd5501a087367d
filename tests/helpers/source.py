"""The syntax trees of the package, parsed once, for the tests of its structure."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "vitdfq"


@cache
def syntax_trees() -> dict[str, ast.Module]:
    """Name of each module, such as "vitdfq.models.vit" -> its syntax tree; a package has the name of its folder."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        trees[name.removesuffix(".__init__")] = ast.parse(path.read_text(), str(path))
    return trees


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Line and full name, "torch.nn.functional" or "timm.models.levit.Stem8", of each import, inside functions too."""
    for node in ast.walk(syntax_trees()[module]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports are not followed here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imported_modules(module: str) -> Iterator[tuple[int, str]]:
    """Line and name of each of the package's modules that a module imports."""
    for line, name in imports(module):
        while name.startswith("vitdfq.") and name not in syntax_trees():
            name = name.rpartition(".")[0]  # a function or class of a module
        if name.startswith("vitdfq."):
            yield line, name


def room(module: str) -> str:
    """The folder, or file, directly below the package: "models" of "vitdfq.models.vit"."""
    return module.split(".")[1] if "." in module else module
