"""Why a rotation does not fit a model: reasons that complete the sentence "rotation ..." with "works on ... only"."""

from torch import nn

from vitdfq.models import FAMILIES, family_of, projections
from vitdfq.models.block_maps import map_names
from vitdfq.models.family import Stream
from vitdfq.models.norms import NORMS, RMS_NORMS
from vitdfq.preparation.linear import Layer, has_affine


def why_not_residual(model: nn.Module) -> str | None:
    """Return why the residual streams of a model cannot be rotated ("works on ... only"); None when they can."""
    rotation, reason = family_of(model).rotation, why_not_at_all(model)
    if rotation is None or reason:
        return reason
    if reason := rotation.why_not_streams(model):
        return reason
    if map_names(model) and not rotation.maps_at_exit:
        return "works where outputs are read behind the last norm only: those of stages are read in the stream's own basis"
    streams = rotation.streams(model)
    norms = [norm for stream in streams for norm in (*writing_norms(model, stream), *reading_norms(model, stream))]
    if other := {type(norm).__name__ for norm in norms if not isinstance(norm, NORMS)} - {"Sequential"}:
        return f"works where every norm is a LayerNorm or an RMSNorm only, not on {' and '.join(sorted(other))}"
    if not all(has_affine(norm) for norm in norms):
        return "works where every norm has its affine only; is the stream rotated already?"
    if any(len({isinstance(norm, RMS_NORMS) for norm in reading_norms(model, stream)}) > 1 for stream in streams):
        return "works where one kind of norm reads a stream only, not LayerNorm beside RMSNorm"
    return None


def why_not_heads(model: nn.Module) -> str | None:
    """Return why no head of a model can be rotated; None when some can."""
    if reason := why_not_at_all(model):
        return reason
    if all(site.queries is None and site.reader is None for site in projections(model)):
        return "works on attentions without norms of queries and keys, or without norm and gate behind, only"
    return None


def why_not_mlp(model: nn.Module) -> str | None:
    """Return why no MLP of a model can be rotated; None when all can."""
    if reason := why_not_at_all(model):
        return reason
    sites = family_of(model).mlp_sites(model)
    return None if sites else "works on MLPs of two linear layers only, and finds none"


def why_not_at_all(model: nn.Module) -> str | None:
    """Return what prevents every rotation of a model; None when heads and MLPs can be rotated."""
    rotation = family_of(model).rotation
    if rotation is None:
        if family_of(model) is FAMILIES["any"]:
            return "works on architectures that a family describes only; this one was opened by watching"
        *names, last = [name for name, family in FAMILIES.items() if family.rotation]
        return f"works on {', '.join(names)} and {last} only, not on this {type(model).__name__}"
    return rotation.why_not(model)


def writing_norms(model: nn.Module, stream: Stream) -> list[nn.Module]:
    """Return the norms whose output is added to a stream."""
    return [part for part in map(model.get_submodule, stream.writers) if not isinstance(part, Layer)]


def reading_norms(model: nn.Module, stream: Stream) -> list[nn.Module]:
    """Return the norms that read a stream, with the one at its exit."""
    norms = [model.get_submodule(site.norm) for site in stream.readers]
    exits = [model.get_submodule(stream.exit)] if stream.exit else []
    return norms + [part for part in exits if not isinstance(part, nn.Identity)]
