"""Transforms by name: each takes a model and changes it in place without changing the function it computes."""

from vitdfq.preparation.fold import fold_layer_scale
from vitdfq.preparation.fold_batch_norm import fold_batch_norm
from vitdfq.preparation.rotate import rotate_heads, rotate_mlp, rotate_residual

TRANSFORMS = {
    "fold_batch_norm": fold_batch_norm,
    "fold_layer_scale": fold_layer_scale,
    "rotate_residual": rotate_residual,
    "rotate_heads": rotate_heads,
    "rotate_mlp": rotate_mlp,
}
