"""C sources of this folder as a shared library, compiled once for a kind of processor and kept in the user's cache."""

import hashlib
import os
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

SOURCES = ("linear.c", "tokens.c", "attention.c", "block.c")
# Sums may be taken in any order only where the source says so (`omp simd`): NaN and infinity keep their meaning elsewhere.
# Without -fno-tree-pre gcc takes more registers for the sums of a tile than there are, and keeps them in memory.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fno-tree-pre")
WRITABLE_BY_OTHERS = 0o022


def compiled(compiler: list[str], target: tuple[str, ...]) -> Path:
    """The shared library, compiled unless the cache has it for these sources, this compiler and these instructions.

    Args:
        compiler: the command, with its own flags.
        target: flags that name instructions. What they mean on this processor is part of the file's name.

    Raises:
        OSError: the compiler fails, or there is no folder that this user alone can write to.
        RuntimeError: this user has no home.
    """
    folder = files("vitdfq.quantization.integer.fused")
    texts = {name: folder.joinpath(name).read_bytes() for name in ("common.h", *SOURCES)}
    macros = _run([*compiler, *target, "-dM", "-E", "-x", "c", os.devnull])  # version and instructions of the compiler
    key = b"\0".join([macros, *(word.encode() for word in (*compiler, *target, *FLAGS)), *texts.values()])
    cache = cache_folder()
    path = cache / f"{hashlib.sha256(key).hexdigest()[:32]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=cache) as name:
        build = Path(name)
        for source, text in texts.items():
            (build / source).write_bytes(text)
        _run(*([*compiler, *target, *FLAGS, "-c", source] for source in SOURCES), folder=build)
        # Without -fopenmp: its functions are those that torch has loaded, so that one pool of threads serves both.
        objects = [Path(source).with_suffix(".o").name for source in SOURCES]
        _run([*compiler, "-shared", *objects, "-o", path.name], folder=build)
        (build / path.name).replace(path)  # whole or not at all: another process may look for it now
    return path


def cache_folder() -> Path:
    """The folder of compiled kernels, made if there is none. What is in it runs as code of this user, who alone may write there.

    Raises:
        OSError: it belongs to another user, or others can write to it; or it cannot be made.
        RuntimeError: this user has no home.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitdfq" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & WRITABLE_BY_OTHERS:
        raise OSError(f"{folder} belongs to another user, or others can write to it")
    return folder


def _run(*commands: list[str], folder: Path | None = None) -> bytes:
    """What commands that run at once write. Raises OSError, when all have ended, with the first line of a complaint."""
    pipe = subprocess.PIPE
    jobs = [subprocess.Popen(each, cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) for each in commands]
    ends = [job.communicate() for job in jobs]
    for command, job, (_, complaint) in zip(commands, jobs, ends, strict=True):
        if job.returncode:
            first = (complaint.decode(errors="replace").strip().splitlines() or ["no message"])[0]
            raise OSError(f"{command[0]} ends with status {job.returncode}: {first}")
    return b"".join(output for output, _ in ends)
