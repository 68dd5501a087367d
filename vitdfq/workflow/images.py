"""`vitdfq images`: the synthetic images of a run as PNG files."""

from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.safetensors_io import read_tensors
from vitdfq.recipe import load_recipe
from vitdfq.recipe.teacher import errors_of_section, load_section
from vitdfq.reports.image_files import save_images
from vitdfq.synthesis.synthesize import image_targets


def write_images(folder: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the images of the run in `folder` to `out` as PNG files whose names hold index and target class.

    The teacher is loaded, which undoes the normalization of the images and names the classes. Procedural images, images of your
    own, and those of a teacher that gives features have no target class.

    Returns:
        {"folder": path, "files": names}.

    Raises:
        InputError: `folder` is no run with images, or `out` holds files already.
        VitdfqError: the teacher cannot be loaded.
    """
    folder, out = Path(folder), Path(out)
    if not (folder / "recipe.yaml").is_file() or not (folder / "images.safetensors").is_file():
        raise InputError(f"{folder}: not a run with images; `vitdfq synthesize RECIPE --out {folder}` makes one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: {'not empty' if out.is_dir() else 'not a folder'}; choose another --out")
    images = read_tensors(folder / "images.safetensors")["images"]
    recipe = load_recipe(folder / "recipe.yaml")
    teacher = load_section(recipe.model)
    with errors_of_section("synthesize"):
        targets = image_targets(teacher, recipe.synthesis)
    classes = [None if target is None else target.main_class for target in targets]
    paths = save_images(teacher, images, classes, out)
    return {"folder": str(out), "files": [path.name for path in paths]}
