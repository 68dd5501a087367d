"""The kernels of this folder, compiled once for a processor and kept in the user's cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from ctypes import c_long, c_void_p
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

SOURCES = ("linear.c", "tokens.c", "attention.c", "block.c")
TARGETS = {"AVX512": "-march=native", "AVX2": "-march=x86-64-v3"}  # by what torch uses itself, which a user can lower
# Sums may be taken in any order only where the source says so (`omp simd`): NaN and infinity keep their meaning elsewhere.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")


class Library:
    """The kernel `block` of block.c, a function of addresses and sizes, and the layout that it was compiled for."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self.group: int = compiled.group()  # neighboring codes that are multiplied at once
        self.panel: int = compiled.panel()  # outputs that are computed at once
        self.tile: int = compiled.tile_rows()  # rows that are computed at once: there is memory for so many more
        self.code_type = torch.uint8 if self.group == 4 else torch.int16
        self.weight_type = torch.int8 if self.group == 4 else torch.int16
        self._block = compiled.block
        self._block.argtypes, self._block.restype = [c_void_p] * 5 + [c_long] * 3, None
        self._scratch = threading.local()

    def block(self, form: ctypes.Structure, x: Tensor, widest: int, at_once: int) -> Tensor:
        """The output of a block for x (B, N, C) float32, whose widest layer has `widest` inputs or outputs.

        `at_once` images go through the block together: what a kernel leaves for the next one should stay in the cache.
        """
        x, out = x.contiguous(), torch.empty(x.shape)
        images, tokens, _ = x.shape
        codes, product = self._buffers((at_once * tokens + self.tile) * widest)
        addresses = (values.data_ptr() for values in (x, out, codes, product))
        self._block(ctypes.byref(form), *addresses, images, tokens, at_once)
        return out

    def _buffers(self, size: int) -> tuple[Tensor, Tensor]:
        """Codes and a product, kept for the next block: fresh memory costs more than the arithmetic on it."""
        codes = getattr(self._scratch, "codes", None)
        if codes is None or len(codes) < size:
            self._scratch.codes, self._scratch.product = torch.empty(size, dtype=self.code_type), torch.empty(size)
        return self._scratch.codes, self._scratch.product


@cache
def library() -> Library | None:
    """The kernels for this processor; None where there is no compiler for them, or no vectors."""
    target = TARGETS.get(torch.backends.cpu.get_cpu_capability())
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if target is None or compiler is None:
        return None
    try:
        return Library(ctypes.CDLL(str(_compiled(compiler, target))))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, no space, another compiler
        return None


def _compiled(compiler: str, target: str) -> Path:
    """The shared library, compiled unless the cache has it for these sources, this compiler and this processor."""
    folder = files("vitdfq.quantization.integer.fused")
    macros = subprocess.check_output([compiler, target, "-dM", "-E", "-x", "c", os.devnull], stderr=subprocess.DEVNULL)
    texts = [folder.joinpath(name).read_bytes() for name in ("common.h", *SOURCES)]
    digest = hashlib.sha256(b"\0".join([macros, target.encode(), *(flag.encode() for flag in FLAGS), *texts])).hexdigest()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitdfq"
    path = home / f"kernels-{digest[:32]}.so"
    if path.exists():
        return path
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=home) as name:
        build = Path(name)
        for source, text in zip(("common.h", *SOURCES), texts, strict=True):
            (build / source).write_bytes(text)
        jobs = [
            subprocess.Popen([compiler, target, *FLAGS, "-c", source], cwd=build, stderr=subprocess.DEVNULL) for source in SOURCES
        ]
        statuses = [job.wait() for job in jobs]
        if any(statuses):
            raise OSError("the kernels do not compile")
        # Without -fopenmp: its functions are those that torch has loaded, so that one pool of threads serves both.
        objects = [Path(source).with_suffix(".o").name for source in SOURCES]
        subprocess.run([compiler, "-shared", *objects, "-o", path.name], cwd=build, check=True, stderr=subprocess.DEVNULL)
        (build / path.name).replace(path)  # whole or not at all: another process may look for it now
    return path
