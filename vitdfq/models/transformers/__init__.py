"""Checkpoints of Hugging Face `transformers`, read as timm's models. The package `transformers` is not needed.

A new model type is one function and one line of `kinds.py`: what its config.json says in timm's words, and its tensors' names.
"""

from vitdfq.models.transformers.images import PREPROCESSOR
from vitdfq.models.transformers.read import is_transformers, read

__all__ = ["PREPROCESSOR", "is_transformers", "read"]
