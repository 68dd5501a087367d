"""The family of last resort: every timm transformer that no other family opens, by watching one pass of shapes.

Nothing here knows an architecture. Modules that multiply activations are opened as they were watched to compute; units are cut
where one tensor carries the images; norms and GELUs are matched with what was seen to read them. What cannot be known is left
out and said: no rotation, and losses on attention only where maps are those of patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.errors import one_line
from vitdfq.models.attention import MatMul
from vitdfq.models.family import AttentionSite, EndSites, Family, MlpSite, NormReaders, Unit
from vitdfq.models.record import hooked
from vitdfq.models.sites import is_layer
from vitdfq.models.storage import without_storage
from vitdfq.models.watching.attention import SOFTMAXES, multiplies, open_watched
from vitdfq.models.watching.batch_norms import watched_batch_norms
from vitdfq.models.watching.chain import Segment, segments
from vitdfq.models.watching.convolutions import computes_layer, computes_weight, make_plain
from vitdfq.models.watching.facts import attention_sites, mlp_sites, norm_readers
from vitdfq.models.watching.recorder import CannotRecordError
from vitdfq.models.watching.watch import Call, tensors_in, watch

BATCHES = (1, 3)  # what is the same for both does not depend on the batch
TINY = 1e-20  # the output of some untrained models is zero
TOLERANCE = 1e-5  # of the largest output: products one by one round differently from fused ones


@dataclass(frozen=True)
class Watched:
    """What was seen of a model before it was opened: `model.watched`. The same for a teacher and its student."""

    size: tuple[int, int]  # (height, width) of the images
    opened: tuple[str, ...]  # modules
    computed: tuple[str, ...]  # convolutions of which timm computes the weight at every pass
    in_float: dict[str, str]  # modules that stay in float -> why
    ends: EndSites
    segments: tuple[Segment, ...]  # units; none: the model is one
    sites: tuple[AttentionSite, ...]
    norms: tuple[NormReaders, ...]
    mlps: tuple[MlpSite, ...]


def is_watched(model: Any) -> bool:
    """Return whether this family opened a model."""
    return isinstance(getattr(model, "watched", None), Watched)


def computed_weights(model: Any) -> tuple[str, ...]:
    """Return the convolutions of which timm computes the weight at every pass: its own model cannot hold another one."""
    return model.watched.computed if is_watched(model) else ()


def matches(model: Any) -> bool:
    """Return whether this is a model of timm's that classifies images or gives features."""
    return all(hasattr(model, name) for name in ("forward_features", "forward_head", "pretrained_cfg"))


def open_model(model: Any) -> None:
    """Open a model in place; its state_dict stays.

    Raises:
        ValueError: a pass of shapes fails, no two activations are multiplied, or the opened model computes something else.
    """
    if is_watched(model):
        return
    size = built_for(model)
    mode = model.training
    model.eval()
    small, large = (_watch(model, size, batch) for batch in BATCHES)  # before any real pass, which may fill a cache
    images = None if next(model.parameters()).is_meta else _probe(model, size)
    buffers = _buffers(model)
    with torch.no_grad():
        expected = None if images is None else model(images)
    _restore(model, buffers)  # a cache that a pass filled is no part of a model that was just built
    owners = {call.name: call for call in large.walk() if multiplies(call)}
    if not owners and not any(call.name is None and call.target in SOFTMAXES for call in large.walk()):
        raise ValueError(f"no part of this {type(model).__name__} attends to anything: it is no transformer")
    computed = tuple(str(call.name) for call in large.walk() if computes_layer(call) and computes_weight(call))
    in_float = _plain_convolutions(model, large) | _open_all(model, small, large)
    opened = tuple(str(name) for name in owners if name not in in_float)
    try:
        units = segments((small, large), set(map(str, owners)), BATCHES)
    except CannotRecordError:
        units = []
    sites = attention_sites(model, large, BATCHES[1], size, list(opened))
    facts = tuple(sites), tuple(norm_readers(large)), tuple(mlp_sites(large))
    model.watched = Watched(size, opened, computed, in_float, _ends(model, large, units), tuple(units), *facts)
    if images is not None:
        _require_same(model, images, expected)
    model.train(mode)


def _watch(model: Any, size: tuple[int, int], batch: int) -> Call:
    ghost, dtype = without_storage(model).requires_grad_(False), next(model.parameters()).dtype
    try:
        return watch(ghost, torch.zeros(batch, 3, *size, dtype=dtype, device="meta", requires_grad=True))
    except Exception as error:  # of any type, from whatever the model does
        raise ValueError(f"a pass of shapes fails ({one_line(error)})") from error


def _plain_convolutions(model: nn.Module, large: Call) -> dict[str, str]:
    """Make convolutions plain that compute their weight or padding at every pass; return those that stay in float, and why."""
    calls: dict[str, list[Call]] = {}
    for call in large.walk():
        if computes_layer(call):
            calls.setdefault(str(call.name), []).append(call)
    reasons = {name: make_plain(model.get_submodule(name), same) for name, same in calls.items()}  # pyright: ignore[reportArgumentType]
    return {name: why for name, why in reasons.items() if why}


def _open_all(model: nn.Module, small: Call, large: Call) -> dict[str, str]:
    """Open all modules that multiply activations; return those that stay in float, and why."""
    pairs: dict[str, list[tuple[Call, Call]]] = {}
    for a, b in zip(small.walk(), large.walk(), strict=True):
        if multiplies(b):
            pairs.setdefault(str(b.name), []).append((a, b))
    in_float = {}
    for name, calls in pairs.items():
        if not name:
            in_float[name] = "it is the model itself"
            continue
        try:
            open_watched(model.get_submodule(name), calls, BATCHES)
        except CannotRecordError as error:
            in_float[name] = str(error)
    return in_float


def _ends(model: Any, top: Call, units: Sequence[Segment]) -> EndSites:
    """Return the layers of the first unit, of which the first one reads the image, and the classifiers."""
    layers = list(dict.fromkeys(str(call.name) for call in top.walk() if call.name and is_layer(model.get_submodule(call.name))))
    first = tuple(f"{name}." for name in units[0].modules) if units else ()
    embedding = [name for name in layers if f"{name}.".startswith(first)] if first else layers[:1]
    heads = [part for classifier in classifiers(model) for part in classifier.modules()]
    return EndSites(tuple(embedding), tuple(name for name in layers if any(model.get_submodule(name) is part for part in heads)))


def classifiers(model: Any) -> tuple[nn.Module, ...]:
    """Return what timm calls the classifiers of a model: one, two, or none where it gives features."""
    given = model.get_classifier() if hasattr(model, "get_classifier") else ()
    found = tuple(given.values()) if isinstance(given, dict | nn.ModuleDict) else given if isinstance(given, tuple) else (given,)
    parts = [part for entry in found for part in (entry if isinstance(entry, nn.ModuleList) else [entry])]
    return tuple(part for part in parts if isinstance(part, nn.Module) and not isinstance(part, nn.Identity))


def _probe(model: nn.Module, size: tuple[int, int]) -> Tensor:
    like = next(model.parameters())
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(like)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_buffers(remove_duplicate=False))


def _restore(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Put back the buffers that a pass replaced, and empty those that it filled."""
    for name, value in _buffers(model).items():
        if value is not buffers.get(name):
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, buffers.get(name))


def _require_same(model: nn.Module, images: Tensor, expected: Any) -> None:
    """Raise ValueError unless the opened model, with its products one by one, and its units compute what timm's model does."""
    wanted = torch.cat([part.flatten() for part in tensors_in(expected)])
    if not wanted.isfinite().all():
        return  # untrained weights of some kinds are not; trained ones are checked where they are read
    x: Any = images
    with torch.no_grad():
        with hooked(part.register_forward_hook(_not_fused) for part in model.modules() if isinstance(part, MatMul)):
            given = {"the opened model": model(images)}
        for unit in units(model):
            x = unit.forward(x)
    for what, output in (given | {"its chain of units": x}).items():
        values = torch.cat([part.flatten() for part in tensors_in(output)])
        is_alike = values.shape == wanted.shape
        error = float((values - wanted).abs().max() / wanted.abs().max().clamp(min=TINY)) if is_alike else torch.inf
        if not error <= TOLERANCE:
            raise ValueError(f"watched, but {what} does not compute what timm's model does (relative difference {error:.1e})")


def _not_fused(module: nn.Module, args: Any, output: Tensor) -> None:
    """A hook: an attention with hooks runs its products one by one."""


def built_for(model: Any) -> tuple[int, int]:
    """Return the image size (height, width) that a model of timm's was built for."""
    arguments = getattr(model, "_model_args", None) or {}
    size = arguments.get("img_size") or getattr(getattr(model, "patch_embed", None), "img_size", None)
    size = size or model.pretrained_cfg["input_size"][1:]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def units(model: Any) -> list[Unit]:
    """Return the units by watching; where the model could not be cut it is one unit: reconstruction takes more memory."""
    if not model.watched.segments:
        return [Unit("embed", lambda x: x, ()), Unit("body", model, tuple(model.children())), Unit("head", lambda x: x, ())]
    claimed: set[int] = set()
    chain = []
    for segment in model.watched.segments:
        modules = [part for part in map(model.get_submodule, segment.modules) if id(part) not in claimed]
        claimed |= {id(part) for part in modules}
        chain.append(Unit(segment.name, partial(_run, model, segment), tuple(modules)))
    return chain


def _run(model: Any, segment: Segment, x: Tensor) -> Any:
    if not segment.tape.fits((x,), {}):
        size = " x ".join(map(str, model.watched.size))
        raise ValueError(f"the units of this {type(model).__name__} take images of {size}: it was opened for these")
    return segment.tape.run(model, (x,), {})


def outputs(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the last block wrote, what the first classifier reads, and the logits, which stand for what is missing."""
    read: list[Tensor] = []
    hooks = (part.register_forward_pre_hook(lambda part, args: read.append(args[0])) for part in classifiers(model)[:1])
    with hooked(hooks):
        logits = units(model)[-1].forward(x)
    return x, read[0] if read else logits, logits


ANY = Family(
    name="any",
    examples="every other transformer of timm's, by watching one pass",
    matches=matches,
    open=open_model,
    attentions=(),
    units=units,
    attention_sites=lambda model: list(model.watched.sites),
    projections=lambda model: [],
    image_size=lambda model: model.watched.size if is_watched(model) else built_for(model),
    final_norm=None,
    norm_readers=lambda model: model.watched.norms,
    mlp_sites=lambda model: model.watched.mlps,
    batch_norms=watched_batch_norms,
    ends=lambda model: model.watched.ends,
    outputs=outputs,
)
