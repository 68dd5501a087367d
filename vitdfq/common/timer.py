"""torch's timer of repeated calls."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer


def timer_of(function: Callable[[], object]) -> "Timer":
    """Return a `torch.utils.benchmark.Timer` of `function()`, with the threads that torch uses now."""
    # The import loads torch's builder of C++ extensions, which warns users where CUDA's compiler is installed without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import torch
    from torch.utils.benchmark import Timer

    return Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
