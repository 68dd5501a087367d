"""A checkpoint is a recipe plus tensors: config.json says how to build the structure, model.safetensors fills it, packed."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq import files, hub, tensors
from vitdfq.errors import InputError
from vitdfq.models import build
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantConv2d, QuantLinear
from vitdfq.quantization.packing import pack, unpack

FORMAT_VERSION = 2
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(student: nn.Module, folder: str | Path) -> Path:
    """Write `student` (calibrated) to `folder`: config.json and model.safetensors, weights as packed integers.

    Returns the folder. 4-bit weights take 4 bits on disk. Other files in the folder are left alone.

    Raises:
        ValueError: not a student of this library, or not calibrated yet.
    """
    if "quantize" not in getattr(student, "vitdfq", {}):
        raise ValueError("save takes what quantize() returned; this module carries no vitdfq description")
    folder = Path(folder)
    state = _packed_state(student)
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{broken[0]} is not finite: calibrate the student before saving it")
    tensors.write_tensors(folder / WEIGHTS, state)
    files.write_text(folder / CONFIG, json.dumps(_config(student), indent=2) + "\n")
    return folder


def load(source: str | Path, *, dequantize: bool = False) -> nn.Module:
    """Return the student in `source`, a folder or a Hub repository id; its logits are bit-equal to the saved one's.

    Args:
        source: where `save` or `push` put it.
        dequantize: return the float model instead, whose weights are the quantized values; it is a plain timm model unless
            `prepare` rotated it or folded BatchNorms, or calibration gave a bias to a layer that has none in timm (Swin's
            `reduction`).

    Raises:
        InputError: files are missing, damaged, or not of this library.
        AccessError: a Hub repository that could not be reached.
    """
    folder = Path(source) if Path(source).exists() else hub.download(str(source))
    config = read_config(folder)
    spec = config["vitdfq"]
    model = build(spec)
    if "prepare" in spec:
        model = prepare(model, **spec["prepare"])
    state = tensors.read_tensors(folder / WEIGHTS)
    student = quantize(model, **spec["quantize"])
    student.vitdfq = spec
    added = _added_biases(student, model)
    for name, bias in added.items():
        state.setdefault(name, bias)  # a checkpoint from before `quantize` added biases: zero is what it means
    _fill(student, state, folder / WEIGHTS)
    if not dequantize:
        return student.eval().requires_grad_(False)
    weights = student.state_dict()
    for name, module in student.named_modules():
        if isinstance(module, QuantLinear):  # a plain Linear subtracts no shift
            weights[f"{name}.bias"] = module.bias - module.weight @ module.input_shift
    for name in added:
        if weights[name].any():  # one that stayed zero is left out: the model stays what timm builds
            model.get_submodule(name.removesuffix(".bias")).bias = nn.Parameter(weights[name])
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a checkpoint folder.

    Raises:
        InputError: missing, not JSON, or not written by this library or by a newer version of it.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {folder} a vitdfq checkpoint?")
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    version = config.get("quantization_config", {}).get("version") if "vitdfq" in config else None
    if version is None:
        raise InputError(f"{path}: not a vitdfq checkpoint (no quantization_config of quant_method vitdfq)")
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: format version {version} is newer than this vitdfq reads ({FORMAT_VERSION}); upgrade")
    return config


def describe(folder: str | Path) -> dict[str, Any]:
    """Return what is inside a checkpoint folder, from its files alone: model, bits, sizes, measured accuracy.

    Raises:
        InputError: missing, damaged, or not a checkpoint.
    """
    folder = Path(folder)
    config = read_config(folder)
    metrics = json.loads((folder / "metrics.json").read_text()) if (folder / "metrics.json").is_file() else {}
    state = tensors.read_tensors(folder / WEIGHTS)
    packed = [name for name in state if name.endswith(".weight_packed")]
    return {
        "model": config["vitdfq"]["model"]["name"],
        "architecture": config["architecture"],
        "classes": config["num_classes"],
        "bits": config["quantization_config"]["bits"],
        "packed layers": len(packed),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "format": config["quantization_config"]["version"],
        "written by": f"vitdfq {config['quantization_config']['library_version']}",
        "top1": metrics.get("student", {}).get("top1"),
        "teacher top1": metrics.get("teacher", {}).get("top1"),
        "reproduce": f"vitdfq run {folder / 'recipe.yaml'}",
    }


def _config(student: nn.Module) -> dict[str, Any]:
    spec = student.vitdfq
    return {
        "architecture": spec["model"]["architecture"],
        "num_classes": spec["model"]["num_classes"],
        "model_args": spec["model"]["model_args"],
        "pretrained_cfg": spec["model"]["pretrained_cfg"],
        "quantization_config": {
            "quant_method": "vitdfq",
            "version": FORMAT_VERSION,
            "format": "pack-quantized",
            "bits": spec["quantize"]["bits"],
            "library_version": vitdfq.__version__,
        },
        "vitdfq": spec,
    }


def _packed_state(student: nn.Module) -> dict[str, Tensor]:
    """The state dict with every quantized weight as packed integer codes and its zero points as bytes."""
    state = dict(student.state_dict())
    for name, module in _packable(student):
        codes = module.weight_quantizer.codes(module.weight.flatten(1))
        del state[f"{name}.weight"]
        state[f"{name}.weight_packed"] = pack(codes, module.weight_quantizer.bits)
        state[f"{name}.weight_shape"] = torch.tensor(module.weight.shape, dtype=torch.int32)
        zero_point = f"{name}.weight_quantizer.zero_point"
        state[zero_point] = state[zero_point].to(torch.uint8)
    return state


def _fill(student: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Unpack `state` into `student`, strictly."""
    try:
        for name, value in student.named_buffers():
            if name.endswith("_shift"):  # format 1 knew none: zero
                state.setdefault(name, value)
        for name, module in _packable(student):
            words, shape = state.pop(f"{name}.weight_packed"), state.pop(f"{name}.weight_shape").tolist()
            quantizer = module.weight_quantizer
            codes = unpack(words, quantizer.bits, columns=module.weight[0].numel())
            quantizer.scale.copy_(state[f"{name}.weight_quantizer.scale"])
            quantizer.zero_point.copy_(state[f"{name}.weight_quantizer.zero_point"])
            state[f"{name}.weight"] = quantizer.decode(codes).view(shape)
            module.weight_on_grid = True
        student.load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: tensors do not fit the structure in {CONFIG} ({reason})") from error


def _added_biases(student: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """The biases that `quantize` gave the student where its float model has none."""
    known = model.state_dict()
    return {name: value for name, value in student.named_parameters() if name.endswith(".bias") and name not in known}


def _packable(student: nn.Module) -> list[tuple[str, QuantLinear | QuantConv2d]]:
    return [
        (name, module)
        for name, module in student.named_modules()
        if isinstance(module, QuantLinear | QuantConv2d) and not isinstance(module.weight_quantizer, nn.Identity)
    ]


def float_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters in float32, as its original checkpoint would hold them."""
    return 4 * sum(parameter.numel() for parameter in model.parameters())
