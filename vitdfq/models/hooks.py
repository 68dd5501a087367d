"""Hooks that do not outlive what they were registered for."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Within the block the hooks of `handles`, registered as they are listed, are there; after it, however it ends, none."""
    registered = []
    try:
        registered.extend(handles)
        yield
    finally:
        for handle in registered:
            handle.remove()
