"""Names that have changed: recipes and checkpoints of earlier versions are read with the names of today."""

from typing import Any

RENAMED_KEYS = {"among": "mix", "canvas": "parametrization", "drop_at": "prune_at"}  # of a recipe's section `synthesize`
RENAMED_LOSSES = {"attention_centre": "attention_center"}
RENAMED_OBSERVERS = {"hessian": "output_error"}


def renamed(quantize: Any) -> Any:
    """Return a copy of a section `quantize`, which may come out of a stranger's file, with today's names of observers."""
    if not isinstance(quantize, dict):
        return quantize
    return {key: _observer(value) if key == "observer" else renamed(value) for key, value in quantize.items()}


def _observer(name: Any) -> Any:
    return RENAMED_OBSERVERS.get(name, name) if isinstance(name, str) else name
