"""`vitdfq convert`: weights as people have them become a folder that `load_teacher` reads, as timm's save_for_hf writes one.

Pickles are read in a process of their own, see `vitdfq/common/unpickle.py`.
"""

import logging
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.safetensors_io import is_pickle, not_finite, read_metadata, read_tensors, write_tensors
from vitdfq.models.build import NORM_EPS, create, known_architecture
from vitdfq.models.fill import few, fill, misfit
from vitdfq.models.other_folders import what_it_is
from vitdfq.models.transformers import is_transformers
from vitdfq.models.transformers import read as read_transformers
from vitdfq.models.weights import INDEX, PICKLES, WEIGHTS, weight_files

logger = logging.getLogger(__name__)

OF_TIMMS_WEIGHTS = ("license", "hf_hub_id", "origin_url")  # what timm's pretrained_cfg says of its weights, not of yours


def convert(
    source: str | Path, out: str | Path, architecture: str | None = None, *, key: str = "", **model_args: Any
) -> dict[str, Any]:
    """Write the weights in `source` to the folder `out`, as config.json and model.safetensors.

    The number of classes is read from the shape of the classifier. A prefix before all names of the model (`module.`,
    `_orig_mod.`, `model.`) is removed; tensors outside the model, of a criterion for example, are left out.

    Args:
        source: a state dict or training checkpoint of PyTorch (.pth, .pt, .bin, .ckpt, .pth.tar), a .safetensors file, or a
            folder of timm or `transformers` that holds one.
        out: folder that does not exist yet.
        architecture: timm's name `architecture[.tag]`; None: the one that the file or the folder's config.json names. The tag
            decides the normalization of images.
        key: entry of a training checkpoint, "state_dict_ema" for example; "": averaged weights if there are any.
        model_args: keyword arguments of `timm.create_model` that shape the model, such as `img_size`.

    Returns:
        "folder", "architecture", "classes", "key" (None: the file is a state dict), "prefix" and "left_out" (names of tensors),
        "mean" and "std" of the images' normalization.

    Raises:
        InputError: nothing to read, `out` exists, no architecture or one that timm does not know, arguments that it does not
            take, or weights that do not fit them.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: exists; choose another --out")
    files, config = _files(Path(source).expanduser())
    file = files[0]
    tensors, about = _read(file, key)
    for other in files[1:]:
        tensors |= _read(other, key)[0]
    if is_transformers(config):
        if architecture is not None:
            raise InputError(f"{file}: config.json beside it says which model it is ({config['model_type']}); leave --arch out")
        tensors, config = _in_timms_names(file.parent, config, tensors, model_args)
    known = architecture or config.get("architecture") or about.get("architecture")
    if not isinstance(known, str):
        raise InputError(f"{file}: does not say which model it is; name it with --arch, as `timm.list_models()` does")
    arguments: dict[str, Any] = {**config.get("model_args", {}), **model_args}
    pretrained_cfg = config.get("pretrained_cfg") if architecture is None else None
    try:
        known_architecture(known)
        model, prefix, left_out = _fill(file, tensors, known, arguments, pretrained_cfg)
    except InputError:
        raise
    except ValueError as error:  # timm's
        raise InputError(f"{file}: {error}") from error
    asked = model_args.get("num_classes", model.num_classes)
    if asked != model.num_classes:
        raise InputError(f"{file}: num_classes is {asked}, but its classifier has {model.num_classes} classes; leave it out")
    if pretrained_cfg is None:
        model.pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key not in OF_TIMMS_WEIGHTS}
    _write(model, out, arguments)
    shape = model.pretrained_cfg
    return {
        "folder": str(out),
        "architecture": known,
        "classes": model.num_classes,
        "key": about.get("key"),
        "prefix": prefix,
        "left_out": left_out,
        "mean": list(shape["mean"]),
        "std": list(shape["std"]),
    }


def _in_timms_names(
    folder: Path, config: dict[str, Any], tensors: dict[str, Any], model_args: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a folder of `transformers` and its config as timm's would be."""
    form = read_transformers(folder, config, img_size=model_args.get("img_size"), headless=model_args.get("num_classes") == 0)
    for note in form.notes:
        logger.warning(note)
    return form.tensors(tensors), {
        "architecture": form.architecture,
        "model_args": form.model_args,
        "pretrained_cfg": form.pretrained_cfg,
    }


def summary(result: dict[str, Any]) -> str:
    """The result of `convert` as text."""
    lines = [f"written to {shlex.quote(result['folder'])}: {result['architecture']}, {result['classes']} classes"]
    if result["key"]:
        lines.append(f"weights of the entry {result['key']!r}; --key names another")
    if result["left_out"]:
        lines.append(f"left out, not of this model: {few(result['left_out'])}")
    lines.append(
        f"images are normalized with mean {result['mean']} and std {result['std']}: correct config.json if it was others"
    )
    name = shlex.quote(f"model.name=local-dir:{result['folder']}")
    return "\n".join([*lines, f"quantize it: vitdfq run RECIPE --set {name}"])


def _files(source: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of weights that a source holds, and its config.json: a file has the one beside it if that is of transformers."""
    folder = source if source.is_dir() else source.parent
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if source.is_dir():
        return _weights_in(folder), config
    return [source], config if is_transformers(config) else {}


def _weights_in(folder: Path) -> list[Path]:
    """The one file of weights in a folder, or the shards of one."""
    if what := what_it_is(folder):
        raise InputError(f"{folder}: {what}")
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return weight_files(folder)
    files = sorted({path for pattern in ("*.safetensors", *PICKLES) for path in folder.glob(pattern)})
    if len(files) == 1:
        return files
    raise InputError(f"{folder}: holds {'no file' if not files else f'{len(files)} files'} of weights; name one file")


def _read(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file of any kind, and what the file says of them."""
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        try:
            return read_tensors(file), {}
        except InputError:
            if not is_pickle(file):
                raise
    with tempfile.TemporaryDirectory() as folder:
        tensors = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-m", "vitdfq.common.unpickle", str(file), str(tensors), key]
        try:
            subprocess.check_output(command, stderr=subprocess.STDOUT, text=True)
        except subprocess.CalledProcessError as error:
            raise InputError(f"{file}: cannot be read ({(error.output.strip().splitlines() or ['killed'])[-1]})") from None
        return read_tensors(tensors), read_metadata(tensors)


def _fill(
    file: Path, tensors: dict[str, Tensor], architecture: str, arguments: dict[str, Any], pretrained_cfg: dict[str, Any] | None
) -> tuple[Any, str, list[str]]:
    """Build the model that the tensors belong to, with them; return also the prefix of its names and the tensors outside it."""
    with torch.device("meta"):
        shape = create(architecture, arguments, pretrained_cfg=pretrained_cfg)
    prefix = _prefix(tensors, shape.state_dict())
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    left_out = [name for name in tensors if not name.startswith(prefix)]
    for name, _ in shape.named_buffers():  # some versions of timm save tables of positions, others compute them
        if name not in shape.state_dict():
            inside.pop(name, None)
    num_classes = _num_classes(shape, inside)
    if num_classes is not None and num_classes != shape.num_classes:
        arguments["num_classes"] = num_classes
    model = create(architecture, arguments, pretrained_cfg=pretrained_cfg)
    if wrong := misfit(model, inside):
        hint = _image_size_hint(inside, model) if wrong == ([], [], ["pos_embed"]) else ""
        raise InputError(f"{file}: is not a {architecture}: {wrong}{hint}")
    fill(model, inside)
    if name := not_finite(model):
        raise InputError(f"{file}: {name} is not finite")
    arguments.pop("num_classes", None)  # config.json has a key for it
    return model, prefix, left_out


def _prefix(tensors: Iterable[str], expected: Iterable[str]) -> str:
    """What stands before the model's names in the file: the prefix with which most of them are there."""
    names, present = list(expected), set(tensors)
    anchors = {name for name in names if name.endswith("proj.weight")} or set(names)
    prefixes = {name.removesuffix(anchor) for anchor in anchors for name in present if name.endswith(anchor)}
    inner = {prefix for prefix in prefixes if not prefix or prefix.endswith(".")}
    return max(sorted(inner | {""}, key=len), key=lambda prefix: sum(prefix + name in present for name in names))


def _num_classes(model: Any, tensors: dict[str, Tensor]) -> int | None:
    """The number of classes of the classifier among the tensors; 0: it was removed; None: the model has none."""
    classifier = model.pretrained_cfg.get("classifier")
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    if not names:
        return None
    weight = tensors.get(f"{names[0]}.weight")
    return 0 if weight is None else len(weight)


def _image_size_hint(tensors: dict[str, Tensor], model: nn.Module) -> str:
    """The image size that the position embedding was made for; it alone does not fit."""
    patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    return f"; try --set img_size={math.isqrt(tensors['pos_embed'].shape[1]) * patch_size[0]}" if patch_size else ""


def _write(model: Any, out: Path, model_args: dict[str, Any]) -> None:
    """Write the folder beside its place, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "folder"
        folder.mkdir()
        write_tensors(folder / WEIGHTS, {name: value.clone() for name, value in model.state_dict().items()})
        model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": model.num_classes}
        eps = {key: value for key, value in model_args.items() if key == NORM_EPS}  # beside what timm understands
        rest = {key: value for key, value in model_args.items() if key not in eps}
        save_config_for_hf(model, str(folder / "config.json"), eps or None, rest or None)
        if out.is_dir():
            out.rmdir()  # empty
        shutil.move(folder, out)
