"""A model without its numbers."""

import copy
from typing import Any

from torch import nn


def without_storage(model: nn.Module) -> Any:
    """Return a copy on the meta device: shapes and types, no numbers."""
    memo: dict[int, Any] = {id(part): nn.Parameter(part.to("meta"), requires_grad=False) for part in model.parameters()}
    memo |= {id(part): part.to("meta") for part in model.buffers()}
    return copy.deepcopy(model, memo)
