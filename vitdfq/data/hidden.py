"""The files of a data set, without those that editors, systems and synchronizers leave beside them."""

import os
from pathlib import Path, PurePath

LEFT_BEHIND = {  # names without a leading dot, in lower case; a name with one is always left out
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
}


def is_hidden(path: str | PurePath) -> bool:
    """Return whether a part of a path inside a set is hidden, or left behind by a program."""
    return any(part.lower() in LEFT_BEHIND or (part.startswith(".") and part not in (".", "..")) for part in PurePath(path).parts)


def visible_files(folder: Path, suffixes: set[str] | None = None) -> list[Path]:
    """Return the files below `folder`, sorted; links are followed, as timm does.

    Args:
        folder: its own name may be hidden.
        suffixes: in lower case; None: all.
    """
    files: list[Path] = []
    entered: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in entered else [name for name in folders if not is_hidden(name)]  # a link may form a circle
        visible = [] if real in entered else [name for name in names if not is_hidden(name)]
        files += [Path(root, name) for name in visible if suffixes is None or Path(name).suffix.lower() in suffixes]
        entered.add(real)
    return sorted(files)


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders directly inside `folder`, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def image_suffixes() -> set[str]:
    """Return the suffixes of the files that PIL reads, in lower case."""
    from PIL import Image

    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}  # PDF is only written
