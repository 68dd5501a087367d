"""Folders of other libraries: what they are, in words, so that a refusal names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.models.untrusted import short

FOREIGN = {  # a file of weights, or a folder of some -> what it is
    "*.gguf": "a GGUF file, of quantized weights for llama.cpp",
    "*.onnx": "a graph of ONNX",
    "onnx/*.onnx": "a graph of ONNX",
    "*.tflite": "a graph of TensorFlow Lite",
    "saved_model.pb": "a graph of TensorFlow",
    "*.h5": "weights of TensorFlow",
    "*.msgpack": "weights of Flax",
    "*.mlpackage": "a model of Core ML",
    "*.npz": "weights of JAX or NumPy",
}


def _adapter(content: dict[str, Any]) -> str:
    base = content.get("base_model_name_or_path")
    return f"is a PEFT adapter of {short(base)}, not a model: merge the two with merge_and_unload() and save the result"


def _pipeline(content: dict[str, Any]) -> str:
    return f"is a pipeline of diffusers ({short(content.get('_class_name'))}), not a vision transformer"


def _sentences(content: Any) -> str:
    return "is a model of sentence-transformers: its parts are listed in modules.json; name the folder of an image tower"


def _open_clip(content: dict[str, Any]) -> str:
    return "is a model of OpenCLIP: its image tower is in timm under vit_*_clip_*, or `vitdfq convert` reads a state dict of it"


MARKS: dict[str, Callable[[Any], str]] = {  # a file that only one library writes -> what the folder is
    "adapter_config.json": _adapter,
    "model_index.json": _pipeline,
    "modules.json": _sentences,
    "open_clip_config.json": _open_clip,
}


def what_it_is(folder: Path) -> str | None:
    """Return what a folder is that another library wrote, as the end of a sentence; None where no mark of one is there."""
    for name, describe in MARKS.items():
        if (folder / name).is_file() and not _is_timm(folder):
            return describe(_content(folder / name))
    file = folder / "config.json"
    if file.is_file():
        content = _content(file)
        if "_diffusers_version" in content:
            return f"is a {short(content.get('_class_name'))} of diffusers, not a vision transformer"
        return None
    found = foreign_weights(folder)
    return f"{found[0][0].name} is {found[0][1]}, which is not read: a float model of timm or transformers is" if found else None


def foreign_weights(folder: Path) -> list[tuple[Path, str]]:
    """Return the files in a folder that hold weights which are not read, and what each is."""
    return [(path, what) for pattern, what in FOREIGN.items() for path in sorted(folder.glob(pattern))]


def _is_timm(folder: Path) -> bool:
    """Whether the folder holds a model of timm beside the mark: OpenCLIP's repositories may hold both."""
    file = folder / "config.json"
    return file.is_file() and isinstance(_content(file).get("architecture"), str)


def _content(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except InputError:  # a list, as sentence-transformers writes; or damaged, which its reader says
        return {}
