"""Give a prepared model the basis of the model before `prepare`, so that timm's architecture can hold its weights; in place.

Rotations of heads stay: they are weights like others. A norm's affine and a LayerScale that were folded stay folded, and so they
are ones and zeros in timm's model.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from vitdfq.models import family_of
from vitdfq.models.hadamard import HadamardTransform
from vitdfq.preparation.linear import layer_at, norm_alone, rotate_input, rotate_output
from vitdfq.preparation.rotate import centering, side_by_side, stream_basis


@torch.no_grad()
def undo(model: nn.Module, steps: Sequence[str]) -> None:
    """Undo the `steps` that `prepare` took, last first; the model may hold other weights by now.

    The function stays the same, with one exception. A ViT's rotated stream is normalized by RMSNorm, which stays here, most of
    timm's by LayerNorm, which ignores the mean over channels. Behind linear layers a float model has no such mean; quantized
    weights write a little. A norm that writes the stream (CLIP) writes a mean again, which only LayerNorm drops.
    """
    for name in reversed(steps):
        if name in UNDO:
            UNDO[name](model)


def _residual(model: nn.Module) -> None:
    """Writers and readers back in timm's basis; a norm and its matrix become a norm with affine again, other norms stay bare."""
    rotation = family_of(model).rotation
    assert rotation is not None
    for stream in rotation.streams(model):
        q = stream_basis(stream)
        written = centering(q) if stream.centered else q
        for name in stream.writers:
            part = model.get_submodule(name)
            if isinstance(part, nn.Sequential):
                model.set_submodule(name, norm_alone(part, written))
            else:
                rotate_output(layer_at(model, name), q.T)
        for name in stream.tokens:
            tokens = model.get_parameter(name)
            tokens.copy_(tokens.double() @ q.to(tokens.device))
        for site in stream.readers:
            for reader in (layer_at(model, name) for name in site.readers):
                rotate_input(reader, side_by_side(q, reader.weight.shape[1]).T)
            norm = model.get_submodule(site.norm)
            if isinstance(norm, nn.Sequential):
                model.set_submodule(site.norm, norm_alone(norm, q, undo=q))
        if stream.exit:
            pair = model.get_submodule(stream.exit)
            assert isinstance(pair, nn.Sequential)
            is_bare = isinstance(pair[0], nn.Identity)
            model.set_submodule(stream.exit, pair[0] if is_bare else norm_alone(pair, torch.eye(len(q), dtype=q.dtype), undo=q))


def _mlp(model: nn.Module) -> None:
    for site in family_of(model).mlp_sites(model):
        pair = model.get_submodule(site.hidden)
        assert isinstance(pair, nn.Sequential)
        hidden, transform = pair
        assert isinstance(transform, HadamardTransform)
        rotate_input(layer_at(model, site.reader), transform.matrix().T)
        model.set_submodule(site.hidden, hidden)


UNDO: dict[str, Callable[[nn.Module], None]] = {"rotate_residual": _residual, "rotate_mlp": _mlp}
