"""Teachers: timm models with their attention opened, and the facts about them that the rooms above need.

A new family is one file here (`family.py` lists the facts that it states) and two lines in `families.py`.
"""

from vitdfq.models.attention import MatMul, OpenedSite, Softmax, untouched
from vitdfq.models.build import build
from vitdfq.models.families import (
    FAMILIES,
    EndSites,
    attention_sites,
    end_sites,
    family_of,
    gelu_readers,
    head_outputs,
    image_range,
    image_size,
    norm_readers,
    open_model,
    prefix_tokens,
    projections,
    units,
)
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Rows, Unit
from vitdfq.models.gives import feature_width, gives, mean_over_tokens, output_name
from vitdfq.models.images import checked_images
from vitdfq.models.load import load_teacher, structure
from vitdfq.models.record import record
from vitdfq.models.require import require_float, require_float32, require_ready, require_student, warn_if_changed
from vitdfq.models.wrappers import unwrapped

__all__ = [
    "FAMILIES",
    "AttentionSite",
    "EndSites",
    "Family",
    "MatMul",
    "NormReaders",
    "OpenedSite",
    "Projections",
    "Rows",
    "Softmax",
    "Unit",
    "attention_sites",
    "build",
    "checked_images",
    "end_sites",
    "family_of",
    "feature_width",
    "gelu_readers",
    "gives",
    "head_outputs",
    "image_range",
    "image_size",
    "load_teacher",
    "mean_over_tokens",
    "norm_readers",
    "open_model",
    "output_name",
    "prefix_tokens",
    "projections",
    "record",
    "require_float",
    "require_float32",
    "require_ready",
    "require_student",
    "structure",
    "units",
    "untouched",
    "unwrapped",
    "warn_if_changed",
]
