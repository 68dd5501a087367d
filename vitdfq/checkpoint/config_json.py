"""config.json of a checkpoint: timm's own keys and two sections of this library.

`quantization_config` lists the packed layers in the grammar of compressed-tensors; `vitdfq` holds the arguments that build the
structure again. The file is read as one that a stranger may have written.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from timm.models._hub import save_config_for_hf

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.options import unknown_key
from vitdfq.common.renamed import renamed
from vitdfq.common.version import __version__
from vitdfq.models.build import known_architecture
from vitdfq.models.untrusted import check_description, short
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization.modules import QuantWeighted, named_weighted_modules
from vitdfq.quantization.options import check_name
from vitdfq.quantization.policy import DEFAULT_BITS, DEFAULT_POLICY, check_quantize, parse_bits
from vitdfq.quantization.quantizers.forms import Affine, TokenAffine

FORMAT_VERSION = 6


class Change(NamedTuple):
    """What a policy gives a role only from a format on, so that earlier files do not deny it."""

    since: int
    policies: tuple[str, ...]
    role: str
    before: dict[str, Any]  # the options of earlier files that do not name these themselves
    activation_bits: Collection[int] = range(2, 9)


CHANGES = [
    Change(4, ("vitdfq",), "activation", {"per_head": False, "per_prefix_token": False}),
    Change(5, ("vitdfq_dynamic",), "activation", {"dynamic_operands": False}),
    Change(6, ("vitdfq", "vitdfq_dynamic", "openvino"), "softmax", {"quantizer": "log_sqrt2"}, range(5, 8)),
]
CONFIG = "config.json"
READ_FROM_MODEL = ("num_classes", "global_pool")  # timm's file holds them as they are now: without a head none is left


def write_config(student: Any, file: Path, *, left_out: int, sha256: str) -> None:
    """Write config.json of a calibrated student, to a temporary file.

    Args:
        student: as saved.
        file: to write.
        left_out: the number of shifts that are not in the weights file because they are zero: `load` notices one that got lost.
        sha256: `digest` of the tensors in the weights file. The two files get their names one after the other: `load` notices
            where a save was killed in between.
    """
    packed = {"version": FORMAT_VERSION, "left_out": left_out, "sha256": sha256} | quantization_config(student)
    sections = {"quantization_config": packed, "vitdfq": student.vitdfq}
    arguments = {key: value for key, value in student.vitdfq["model"]["model_args"].items() if key not in READ_FROM_MODEL}
    save_config_for_hf(student, file, sections, arguments)  # pyright: ignore[reportArgumentType]


def quantization_config(student: Any) -> dict[str, Any]:
    """Return the section for a calibrated student. Layers of equal grids share a group; `ignore` names those stored in float."""
    groups: list[dict[str, Any]] = []
    ignored: list[str] = []
    for name, layer in named_weighted_modules(student):
        grids = {"weights": _weight_grid(layer), "input_activations": _input_grid(layer)}
        if grids["weights"] is None:
            ignored.append(name)
        same = next((group for group in groups if {key: group[key] for key in grids} == grids), None)
        if same is None:
            groups.append(same := {"targets": [], **grids})
        same["targets"].append(name)
    groups = [group for group in groups if group["weights"] is not None]
    return {
        "quant_method": "vitdfq",
        "library_version": __version__,
        "bits": student.vitdfq["quantize"]["bits"],
        "modules_to_not_convert": ignored,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ignored,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
    }


def _weight_grid(layer: QuantWeighted) -> dict[str, Any] | None:
    """None: stored in float."""
    grid = layer.weight_quantizer.affine
    if grid is None:
        return None
    return _args(grid.bits, grid.symmetric, grid.granularity) | {"group_size": grid.group_size}


def _input_grid(layer: QuantWeighted) -> dict[str, Any] | None:
    """None: in float, or on a grid that compressed-tensors has no word for."""
    quantizer: Any = layer.input_quantizer
    match quantizer.int8_planes():
        case TokenAffine(dynamic=True) as grid if quantizer.clip == 1:
            return _args(grid.bits, grid.symmetric, "token") | {"dynamic": True}
        case Affine(granularity="tensor") as grid:
            return _args(grid.bits, grid.symmetric, "tensor") | {"dynamic": False}
        case _:
            return None


def _args(bits: int, symmetric: bool, strategy: str) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json of a checkpoint folder, every value that shapes the model checked, with today's names.

    Raises:
        InputError: missing, not JSON, not written by this library or by a newer version of it, or a value that is not possible.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {folder} a vitdfq checkpoint?")
    config = read_json(path)
    packed, spec = config.get("quantization_config"), config.get("vitdfq")
    if not isinstance(packed, dict) or not isinstance(spec, dict) or packed.get("quant_method") != "vitdfq":
        raise InputError(f"{path}: not a vitdfq checkpoint (no quantization_config of quant_method vitdfq)")
    version = packed.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{path}: quantization_config.version is {short(version)}; choices: 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: format version {version} is newer than this vitdfq reads ({FORMAT_VERSION}); upgrade")
    for section in ("model", "quantize"):
        if not isinstance(spec.get(section), dict):
            raise InputError(f"{path}: vitdfq.{section} is not a mapping")
    spec["quantize"] = renamed(spec["quantize"])
    spec["quantize"] |= _earlier_options(spec["quantize"], version)
    try:
        check_description(spec["model"])
        known_architecture(spec["model"]["architecture"])
        if "prepare" in spec:
            _check_prepare(spec["prepare"])
    except ValueError as error:
        raise InputError(f"{path}: vitdfq: {error}") from error
    try:
        check_quantize(spec["quantize"])
    except ValueError as error:
        raise InputError(f"{path}: vitdfq: quantize.{error}") from error
    return config


def _earlier_options(section: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return the roles of a file of this format as the policy of today needs them; what is wrong in them stays."""
    try:
        _, activation_bits = parse_bits(section.get("bits", DEFAULT_BITS))
    except ValueError:
        return {}  # `check_quantize` says so
    roles: dict[str, Any] = {}
    for change in CHANGES:
        is_meant = section.get("policy", DEFAULT_POLICY) in change.policies and activation_bits in change.activation_bits
        given = section.get(change.role) or {}
        if version < change.since and is_meant and isinstance(given, dict):
            roles[change.role] = change.before | given
    return roles


def _check_prepare(section: Any) -> None:
    """Check the record that `prepare` leaves.

    Raises:
        ValueError: with the key, the value and the choices.
    """
    if not isinstance(section, dict) or not isinstance(section.get("steps"), list):
        raise ValueError(f"prepare is {short(section)}; expected a mapping with a list of steps")
    for key in section:
        if key != "steps":
            raise ValueError(f"prepare.{short(key)}: {unknown_key(key, ['steps'])}")
    for index, name in enumerate(section["steps"]):
        try:
            check_name(name, TRANSFORMS, "preparation step")
        except ValueError as error:
            raise ValueError(f"prepare.steps.{index}: {error}") from None
