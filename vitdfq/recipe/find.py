"""Find a recipe: a path first, else the name of one in `recipes/` here or in the checkout the package lies in."""

from pathlib import Path

from vitdfq.common.errors import InputError
from vitdfq.common.lookup import did_you_mean

FOLDERS = (Path("recipes"), Path(__file__).with_name("packaged"))


def packaged_recipes() -> dict[str, Path]:
    """Name -> path of every recipe in `recipes/`."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_recipe(given: str | Path) -> Path:
    """Return the path of a recipe.

    Raises:
        InputError: there is no such file; the message names the nearest.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{given}: is a folder, not a recipe file")
    recipes = packaged_recipes()
    if str(given) in recipes:
        return recipes[str(given)]
    beside = path.parent.glob("*.y*ml") if path.parent.is_dir() else []
    choices = [*(str(near) for near in sorted(beside)), *recipes]
    near = did_you_mean(str(given), choices) or did_you_mean(path.stem, recipes)
    raise InputError(f"{given}: no such recipe{near}; `vitdfq list recipes` shows those that come with the package")
