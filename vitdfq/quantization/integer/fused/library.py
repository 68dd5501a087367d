"""The kernels of this folder: loaded for the processor at hand, with the layout that they were compiled for."""

import ctypes
import logging
import os
import shlex
import shutil
import threading
from ctypes import c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from vitdfq.quantization.integer.fused.compiled import compiled

# By what torch uses itself, which a user can lower. On a processor without VNNI the first one is the second one.
TARGETS = {
    "AVX512": ("-march=native",),
    "AVX512 without VNNI": ("-march=native", "-mno-avx512vnni"),
    "AVX2": ("-mavx2", "-mfma"),
}
logger = logging.getLogger(__name__)


class Library:
    """The kernel `block` of block.c, a function of addresses and sizes, and the layout that it was compiled for."""

    small: "Library"  # for blocks whose products of a code and a weight are at most `largest_small`: in bytes everywhere

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self.group: int = compiled.group()  # neighboring codes that are multiplied at once
        self.panel: int = compiled.panel()  # outputs that are computed at once
        self.tile: int = compiled.tile_rows()  # rows that are computed at once: there is memory for so many more
        self.largest_small: int = torch.iinfo(torch.int16).max // (2 * compiled.together())
        self.code_type = torch.uint8 if self.group == 4 else torch.int16
        self.weight_type = torch.int8 if self.group == 4 else torch.int16
        self.functions = compiled
        self.functions.block.argtypes, self.functions.block.restype = [c_void_p] * 5 + [c_long] * 3, None
        self._scratch = threading.local()

    def for_products(self, largest: int) -> "Library":
        """The kernels for a block with these products; see `BlockForm.largest_product`."""
        return self.small if largest <= self.largest_small else self

    def block(self, form: ctypes.Structure, x: Tensor, widest: int, at_once: int) -> Tensor:
        """The output of a block for x (B, N, C) float32, whose widest layer has `widest` inputs or outputs.

        `at_once` images go through the block together: what a kernel leaves for the next one should stay in the cache.
        """
        x, out = x.contiguous(), torch.empty(x.shape)
        images, tokens, _ = x.shape
        codes, product = self._buffers((at_once * tokens + self.tile) * widest)
        addresses = (values.data_ptr() for values in (x, out, codes, product))
        self.functions.block(ctypes.byref(form), *addresses, images, tokens, at_once)
        return out

    def _buffers(self, size: int) -> tuple[Tensor, Tensor]:
        """Codes and a product, kept for the next block: fresh memory costs more than the arithmetic on it."""
        codes = getattr(self._scratch, "codes", None)
        if codes is None or len(codes) < size:
            self._scratch.codes, self._scratch.product = torch.empty(size, dtype=self.code_type), torch.empty(size)
        return self._scratch.codes, self._scratch.product


def has_vectors() -> bool:
    """Whether the kernels know the instructions that torch uses on this processor. Their cache needs a POSIX system."""
    return os.name == "posix" and torch.backends.cpu.get_cpu_capability() in TARGETS


@cache
def library() -> Library | None:
    """The kernels for this processor; None where it has no vectors for them, or, which is logged, they cannot be compiled."""
    if not has_vectors():
        return None
    try:
        return library_for(torch.backends.cpu.get_cpu_capability())
    except (OSError, RuntimeError, ValueError) as error:  # no compiler or another kind, no home, no space, quotes in CC
        logger.warning("no kernels for blocks of integer students, which run site by site, at about half the speed: %s", error)
        return None


@cache
def library_for(target: str) -> Library:
    """The kernels for one of TARGETS, whether the processor has its instructions or not; see `compiled` for errors."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise OSError(f"there is no C compiler {command[0]}; set CC to one")
    flags = TARGETS[target]
    kernels = Library(ctypes.CDLL(str(compiled(command, flags))))
    in_bytes = kernels.group == 4
    kernels.small = kernels if in_bytes else Library(ctypes.CDLL(str(compiled(command, (*flags, "-DSMALL_PRODUCTS")))))
    return kernels
