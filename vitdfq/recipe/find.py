"""Find a recipe: a path, else the name of one in the folder `recipes` here or in the package; read its header."""

import re
from pathlib import Path

from vitdfq.common.errors import InputError
from vitdfq.common.lookup import did_you_mean

LOCAL = Path("recipes")
PACKAGED = Path(__file__).with_name("packaged")


def packaged_recipes() -> dict[str, Path]:
    """Return name -> path of every recipe that can be run by its name; bases, whose names start with "_", are left out."""
    paths = [*sorted(LOCAL.glob("*.yaml")), *sorted(PACKAGED.glob("*.yaml"))]
    return {path.stem: path for path in reversed(paths) if not is_base(path)}


def packaged_names() -> list[str]:
    """Return the names of all recipes of the package, bases among them."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def packaged_file(name: str) -> Path | None:
    """Return the path of a recipe of the package, or None; a base is one too."""
    return PACKAGED / f"{name}.yaml" if name in packaged_names() else None


def header_line(path: Path, word: str) -> str:
    """Return what a line of a recipe's header says: `word` is What, Command, Expected or Cost; "" without such a line."""
    match = re.search(rf"^# {word} +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1).strip() if match else ""


def is_base(path: Path) -> bool:
    """Return whether a file is a base for other recipes: its name starts with "_"."""
    return path.name.startswith("_")


def find_recipe(given: str | Path) -> Path:
    """Return the path of a recipe: the file itself, a packaged one for `recipes/NAME.yaml`, or the recipe of that name.

    Raises:
        InputError: there is none (the message names the nearest), or it is a base.
    """
    path = _find(given, Path(given).expanduser())
    if is_base(path):
        raise InputError(f"{given}: is a base for other recipes, not a recipe; one that says `extends: {path.stem}` can be run")
    return path


def _find(given: str | Path, path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{given}: is a folder, not a recipe file")
    recipes = packaged_recipes()
    if str(given) in recipes:
        return recipes[str(given)]
    packaged = packaged_file(path.stem)
    if packaged and path in (Path(path.stem), LOCAL / packaged.name):  # as in a checkout, from any folder
        return packaged
    beside = path.parent.glob("*.y*ml") if path.parent.is_dir() else []
    choices = [*(str(near) for near in sorted(beside)), *recipes]
    near = did_you_mean(str(given), choices) or did_you_mean(path.stem, recipes)
    raise InputError(f"{given}: no such recipe{near}; `vitdfq list recipes` shows those that come with the package")
