"""A teacher from a module that was built with timm, and since then trained, wrapped, tied or given another classifier."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

from vitdfq.common.errors import one_line
from vitdfq.common.safetensors_io import not_finite
from vitdfq.models.any_timm import is_watched
from vitdfq.models.attention import OpenedSite, has_hooks
from vitdfq.models.build import ORIGIN, create, finish, full_name, known_architecture
from vitdfq.models.families import family_of, image_size, open_model
from vitdfq.models.same_model import INACTIVE, first_difference
from vitdfq.models.wrappers import unwrapped

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of logits: fused kernels round differently
TAKEN = "other weights and another linear classifier are taken, other changes are not"
ARGUMENTS = "pass the timm keyword arguments it was built with: load_teacher(module, img_size=..., ...)"


def from_module(module: nn.Module, overrides: dict[str, Any], family: str | None = None) -> nn.Module:
    """Build the module again with timm, fill it with the module's weights, and check on one image that it computes the same.

    The teacher is thus what `load` can build. Nothing else of the module comes along: wrappers, hooks, parameters that are tied
    (each gets its own), parametrizations (their current weights are taken), precision (float32 holds half precision exactly).

    Raises:
        ValueError: it is not built with timm, is of no supported family, is quantized or prepared, has weights that are missing
            or not finite, or was changed in a way that weights cannot express.
    """
    module = unwrapped(module)
    kind = type(module).__name__
    pretrained_cfg: Any = getattr(module, "pretrained_cfg", None) or {}
    if not pretrained_cfg.get("architecture"):
        raise ValueError(f"{kind} was not built with timm.create_model, so it cannot be built again{_timm_model_in(module)}")
    record = getattr(module, "vitdfq", {})
    if "quantize" in record or "integer" in record or record.get("prepare", {}).get("steps"):
        raise ValueError(f"load_teacher takes a timm model; this {kind} is quantized or prepared already")
    family_of(module)  # first: what no family opens is refused for this reason
    family = family or record.get("model", {}).get("family")
    name, device = full_name(pretrained_cfg), _require_weights(module)
    remembered = record.get("model", {}).get("model_args", getattr(module, "_model_args", {}))
    heads = linear_heads(module)
    num_classes = _num_classes(module)
    if overrides.get("num_classes", num_classes) != num_classes:
        raise ValueError(f"num_classes is {overrides['num_classes']}; the classifier of this {kind} has {num_classes}")
    pool = getattr(module, "global_pool", None)
    pool = pool if isinstance(pool, str) else None  # a module, or none: the architecture has no choice of poolings
    current = {"num_classes": num_classes} | ({} if pool is None else {"global_pool": pool})  # both can be changed after a model is built
    model_args = {key: current.get(key, value) for key, value in {**remembered, **overrides}.items()}
    advice = f"{ARGUMENTS}; {TAKEN}" if overrides or not remembered else TAKEN

    def refusal(difference: object) -> ValueError:
        return ValueError(f"{name} with the arguments {model_args} is not this module: {one_line(difference)}; {advice}")

    try:
        cfg = _pretrained_cfg(module, num_classes)
        rebuilt = create(known_architecture(name), {**model_args, "num_classes": num_classes}, pretrained_cfg=cfg)
        if pool is not None and rebuilt.global_pool != pool:
            model_args["global_pool"] = pool
            rebuilt = create(known_architecture(name), {**model_args, "num_classes": num_classes}, pretrained_cfg=cfg)
        if is_watched(module) or any(isinstance(part, OpenedSite) for part in module.modules()):
            open_model(rebuilt, family)
    except ValueError as error:
        raise refusal(error) from error
    if difference := first_difference(module, rebuilt, heads):
        raise refusal(difference)
    rebuilt.to(device)
    images, expected = _fill(rebuilt, module, name)
    teacher = finish(rebuilt, name, model_args, family).to(device)  # filled first: opening may compute weights from others
    if difference := _other_logits(teacher, images, expected, module):
        raise refusal(difference)
    half = {value.dtype for value in module.parameters() if value.dtype != torch.float32}
    if half:
        logger.info("load_teacher: weights of %s became float32", ", ".join(sorted(str(dtype) for dtype in half)))
    return teacher


def _timm_model_in(module: nn.Module) -> str:
    """Advice where a module holds a model of timm's, as those of training libraries do."""
    configs = {name: getattr(part, "pretrained_cfg", None) for name, part in module.named_modules()}
    inside = next((name for name, config in configs.items() if config and config.get("architecture")), None)
    return "" if inside is None else f"; its part {inside} was: load_teacher(model.get_submodule({inside!r}))"


def _fill(rebuilt: nn.Module, module: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Give a rebuilt model a module's weights; return an image, and the module's logits for it.

    Raises:
        ValueError: the module does not run.
    """
    own = _copy(module)
    weights = next(rebuilt.parameters())
    images = torch.rand(1, 3, *image_size(rebuilt), generator=torch.Generator().manual_seed(0)).to(weights.device)
    with torch.no_grad():
        try:
            expected = own(images)  # first: old forms of weight_norm compute the weight at each pass
        except Exception as error:  # the module's forward may raise any type
            raise ValueError(f"{name} does not run in eval mode and float32: {one_line(error)}") from error
        rebuilt.load_state_dict(_state(own, rebuilt.state_dict(), linear_heads(own)))
    return images, expected


@torch.no_grad()
def _other_logits(teacher: nn.Module, images: Tensor, expected: Tensor, module: nn.Module) -> str | None:
    """Return what makes a module's logits for images differ from those of the teacher with its weights; None where they are alike."""
    try:
        torch.testing.assert_close(teacher(images), expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()))
    except AssertionError as error:
        kind = type(module).__name__
        hooked = [part_name or kind for part_name, part in module.named_modules() if has_hooks(part)]
        return f"a hook of {hooked[0]} changes its logits" if hooked else f"its logits differ ({one_line(error)})"
    return None


def linear_heads(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layer of each classifier that is a Sequential of dropout and one Linear, by the classifier's name."""
    heads = {}
    for name, classifier in _classifiers(module).items():
        if type(classifier) is nn.Sequential:
            parts = [part for part in classifier if not isinstance(part, INACTIVE)]
            if len(parts) == 1 and isinstance(parts[0], nn.Linear):
                heads[name] = parts[0]
    return heads


def _classifiers(module: Any) -> dict[str, nn.Module]:
    try:
        classifiers = module.get_classifier()
    except AttributeError:  # Swin's head replaced as a whole: the comparison names it
        return {}
    wanted = classifiers if isinstance(classifiers, tuple) else (classifiers,)
    parts = module.named_modules(remove_duplicate=False)
    return {name: part for name, part in parts if any(part is classifier for classifier in wanted)}


def _num_classes(module: Any) -> int:
    """The number of classes of the classifier as it is now, 0 without one; `module.num_classes` may be that of an earlier one.

    Raises:
        ValueError: classifiers of different sizes.
    """
    layers = {
        name: [part for part in classifier.modules() if isinstance(part, nn.Linear)]
        for name, classifier in _classifiers(module).items()
    }
    sizes = {name: linears[-1].out_features if linears else 0 for name, linears in layers.items()}
    if len(set(sizes.values())) > 1:
        different = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"the classifiers of this {type(module).__name__} differ in their number of classes: {different}")
    return next(iter(sizes.values()), module.num_classes)


def _pretrained_cfg(module: Any, num_classes: int) -> dict[str, Any]:
    """A copy of the module's `pretrained_cfg`, without names of classes that it no longer has."""
    cfg = {key: copy.deepcopy(value) for key, value in module.pretrained_cfg.items() if key not in ORIGIN}
    if cfg.get("num_classes", num_classes) != num_classes:
        names = cfg.get("label_names") or ()
        dropped = ("label_descriptions", "label_offset", *(() if len(names) == num_classes else ("label_names",)))
        cfg = {key: value for key, value in cfg.items() if key not in dropped} | {"num_classes": num_classes}
    return cfg


def _require_weights(module: nn.Module) -> torch.device:
    """Return the device of the parameters.

    Raises:
        ValueError: they are on the meta device or on several devices, or not finite.
    """
    state: dict[str, Any] = module.state_dict()
    for name, value in state.items():
        if isinstance(value, UninitializedTensorMixin):
            raise ValueError(f"{name} of this {type(module).__name__} has no values yet: run the module once on an image")
        if not isinstance(value, Tensor):  # torch's own quantized layers
            raise ValueError(f"{name} of this {type(module).__name__} is no tensor; load_teacher takes float models")
    devices = {value.device for value in state.values()}
    if any(device.type == "meta" for device in devices):
        raise ValueError(f"this {type(module).__name__} has no weights: it is on the meta device")
    if len(devices) > 1:
        raise ValueError(
            f"this {type(module).__name__} is spread over {', '.join(sorted(map(str, devices)))}: move it to one device"
        )
    if name := not_finite(module):
        raise ValueError(f"{name} of this {type(module).__name__} is not finite")
    return devices.pop()


def _copy(module: nn.Module) -> nn.Module:
    """A copy in float32 and eval mode. Weights that a hook computes have a history, which torch does not copy."""
    values = [value for part in module.modules() for value in vars(part).values()]
    memo: dict[int, Any] = {id(value): value.detach() for value in values if isinstance(value, Tensor) and not value.is_leaf}
    try:
        return copy.deepcopy(module, memo).float().eval()
    except Exception as error:  # of any type, from whatever hangs on the module
        raise ValueError(f"this {type(module).__name__} cannot be copied: {one_line(error)}") from error


def _state(module: nn.Module, needed: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of these names, as the module uses them: a parametrized weight is computed. A missing bias is zero."""
    state = {}
    for name, value in needed.items():
        owner, _, key = name.rpartition(".")
        part = heads.get(owner) or module.get_submodule(owner)
        given = getattr(part, key)
        state[name] = torch.zeros_like(value) if given is None else given.detach()
    return state
