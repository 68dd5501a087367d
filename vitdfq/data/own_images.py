"""Images of the user's own in place of synthetic ones: a folder of image files, or a safetensors file."""

from pathlib import Path

from torch import Tensor, nn

from vitdfq.common.errors import InputError
from vitdfq.common.safetensors_io import read_header, read_tensors
from vitdfq.data.batches import batches, transform_of
from vitdfq.data.labeled import load_labeled
from vitdfq.data.source import NO_LABELS

NAME = "images"  # of the tensor in images.safetensors of a run
SUFFIX = ".safetensors"


def read_own_images(teacher: nn.Module, path: str | Path, num_images: int) -> Tensor:
    """Return the first `num_images` images of a folder or file, (num_images, 3, H, W), normalized, on the CPU.

    Files of a folder are in the order of their names and transformed as timm evaluates them; class folders in it are read
    without their labels. A tensor of a safetensors file is returned as it is: it must be normalized already, which
    `models.checked_images` checks.

    Args:
        teacher: defines size and normalization of image files.
        path: a folder of image files, or a safetensors file with one tensor, or with one that is called "images".

    Raises:
        InputError: there is no such path, it holds no images, or too few; a file that cannot be read.
    """
    check_own_images(path)
    file = Path(path).expanduser()
    images = _of_file(file) if file.is_file() else _of_folder(teacher, file, num_images)
    if len(images) < num_images:
        raise InputError(f"images: {path} holds {len(images)} images, num_images is {num_images}: lower it, or add images")
    return images[:num_images]


def check_own_images(path: str | Path) -> None:
    """Refuse a path that cannot hold images, before any work; nothing is read.

    Raises:
        InputError: neither a folder nor a safetensors file is there.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"images: {path}: no such file or folder")
    if file.is_file() and file.suffix.lower() != SUFFIX:
        raise InputError(f"images: {path} is neither a folder of image files nor a {SUFFIX} file")


def _of_file(file: Path) -> Tensor:
    names = list(read_header(file))
    if NAME not in names and len(names) != 1:
        held = f"{len(names)} tensors" if names else "no tensor"
        raise InputError(f"images: {file} holds {held}, none of them called {NAME!r}")
    return read_tensors(file)[NAME if NAME in names else names[0]]


def _of_folder(teacher: nn.Module, folder: Path, num_images: int) -> Tensor:
    labeled = load_labeled(str(folder), "train", None, label_column=NO_LABELS)
    for images, _ in batches(labeled, transform_of(teacher), batch_size=num_images, num_images=num_images):
        return images
    raise InputError(f"images: {folder} holds no images")
