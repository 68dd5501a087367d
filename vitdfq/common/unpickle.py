"""The tensors of a PyTorch file, in a process of their own: `python -m vitdfq.common.unpickle FILE OUT KEY`.

`torch.load(weights_only=True)` builds tensors and plain containers only. What else stands in a training checkpoint (argparse's
Namespace, a trainer's settings, a whole module) is replaced by `Ignored`, which does nothing: no code of the file's choice runs.
OUT receives the state dict as safetensors; its metadata names the entry that it came from, and the architecture if the file does.
"""

import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from vitdfq.common.errors import one_line
from vitdfq.common.safetensors_io import write_tensors

# Where training code keeps a state dict. Averaged weights first, as timm does: they are what such a training is measured on.
KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module", "net", "teacher")


class Ignored:
    """Stands for any class or function of the file; what it makes is a dictionary that keeps the attributes it is given.

    torch fills no type but plain dictionaries; in an OrderedDict it stores attributes too.
    """

    def __new__(cls, *arguments: object, **keywords: object) -> Any:
        return OrderedDict()


def read(file: Path, key: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's state dict, and what is known of it: "key", and "architecture" if the file names one.

    Args:
        file: what `torch.save` wrote: a state dict, a module, or a mapping that holds one of them.
        key: the entry of the mapping; "": the first of `KEYS` that is there.

    Raises:
        ValueError: there is no state dict.
        Exception: torch's own, for a file that is damaged or forbidden.
    """
    if reason := _no_checkpoint(file):
        raise ValueError(reason)
    try:
        others = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except ValueError:  # older than torch 1.6: no zip
        others = ["argparse.Namespace"]
    stand_ins: list[Any] = [(Ignored, name) for name in others]
    with torch.serialization.safe_globals(stand_ins), open(file, "rb") as opened:  # by its name torch would guess its kind
        content = torch.load(opened, map_location="cpu", weights_only=True)
    about: dict[str, str] = {}
    if isinstance(content, Mapping):
        if isinstance(content.get("arch"), str):
            about["architecture"] = content["arch"]
        holders = [name for name in (KEYS if not key else (key,)) if _tensors(content.get(name))]
        if key and not holders:
            choices = ", ".join(str(name) for name, value in content.items() if _tensors(value)) or "none"
            raise ValueError(f"no state dict under {key!r}; choices: {choices}")
        if holders and not ("." in holders[0] or isinstance(content[holders[0]], Tensor)):
            about["key"] = holders[0]
            content = content[holders[0]]
    tensors = _tensors(content)
    if not tensors:
        raise ValueError("holds no state dict: no tensors by name")
    return tensors, about


def _no_checkpoint(file: Path) -> str | None:
    """What a file is that torch would blame with its own internals: empty, an unfinished download, or text; else None."""
    with open(file, "rb") as opened:
        start = opened.read(200)
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file; get it with `git lfs pull`"
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return "its end is missing; copy or download it again"
    if start.lstrip().startswith((b"<", b"{")):
        return "text, such as a web page or JSON; download it again"
    return None


def _tensors(content: object) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a module that was pickled whole, by name."""
    if "_modules" in getattr(content, "__dict__", {}):
        return dict(_module_tensors(content, ""))
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _module_tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """As `state_dict` of a module, of which only the attributes are known."""
    attributes = vars(module)
    hidden = attributes.get("_non_persistent_buffers_set") or ()
    for name, value in {**attributes.get("_parameters", {}), **attributes.get("_buffers", {})}.items():
        if isinstance(value, Tensor) and name not in hidden:
            yield prefix + name, value
    for name, inner in attributes["_modules"].items():
        if inner is not None:
            yield from _module_tensors(inner, f"{prefix}{name}.")


def _explain(error: Exception) -> str:
    """torch's reason in one line, without its advice to read the file all the same."""
    if isinstance(error, UnpicklingError):
        return one_line(str(error).strip().split("\n\n")[-2:][0])
    return one_line(error if type(error) is ValueError else f"{type(error).__name__}: {error}")


def main() -> None:
    """Write the tensors of argv's FILE to OUT, or end with one line on stderr."""
    file, out, key = sys.argv[1:]
    try:
        tensors, about = read(Path(file), key)
        # tied weights share memory, which safetensors refuses
        write_tensors(Path(out), {name: value.clone() for name, value in tensors.items()}, about)
    except Exception as error:  # torch raises any type for a file of unknown origin
        raise SystemExit(_explain(error)) from None


if __name__ == "__main__":
    main()
