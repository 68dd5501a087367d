"""Teachers: timm models with their attention opened, and what the engines need to know of them.

A new family is one file here (see `family.py` for what it states) and two lines in `families.py`.
"""

from vitdfq.models.attention import MatMul, Softmax, untouched
from vitdfq.models.build import build
from vitdfq.models.families import FAMILIES, attention_sites, family_of, norm_readers, open_model, projections, units
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Rows, Unit
from vitdfq.models.image_spec import image_range, image_size
from vitdfq.models.levit import OpenedLevitAttention, OpenedLevitDownsample
from vitdfq.models.load import load_teacher, structure
from vitdfq.models.record import record
from vitdfq.models.swin import OpenedWindowAttention
from vitdfq.models.vit import OpenedAttention

__all__ = [
    "FAMILIES",
    "AttentionSite",
    "Family",
    "MatMul",
    "NormReaders",
    "OpenedAttention",
    "OpenedLevitAttention",
    "OpenedLevitDownsample",
    "OpenedWindowAttention",
    "Projections",
    "Rows",
    "Softmax",
    "Unit",
    "attention_sites",
    "build",
    "family_of",
    "image_range",
    "image_size",
    "load_teacher",
    "norm_readers",
    "open_model",
    "projections",
    "record",
    "structure",
    "units",
    "untouched",
]
