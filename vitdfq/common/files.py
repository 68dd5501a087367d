"""Files that are never half-written, JSON files of unknown origin, and fingerprints.

Nothing here knows of processes: where several run the same line, the caller writes in the main one only.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError, one_line

LARGEST_JSON = 8 << 20  # bytes; the names of 21,000 classes and their descriptions take 3 MB
DEEPEST_JSON = 32


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` when the block ends without an exception."""
    with written_together(path) as (temporary,):
        yield temporary


@contextmanager
def written_together(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path beside each of `paths`; rename all, in this order, when the block ends without an exception.

    No file is replaced before all are complete on the disk, and where the system refuses to replace one, those before it are put
    back. The temporary files exist already, empty: the system gave them the
    permissions of new files, and the results keep these whatever the block puts in their place.
    """
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        permissions = []
        for path, temporary in zip(paths, temporaries, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of a killed process that had the same id
            permissions.append(_create(temporary))
        yield temporaries
        for temporary, permission in zip(temporaries, permissions, strict=True):
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(permission)  # safetensors writes another file, which only its owner may read, and renames it
        _replace_all(paths, temporaries)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _replace_all(paths: Sequence[Path], temporaries: Sequence[Path]) -> None:
    """Rename each temporary file over its path; all or none, short of a killed process."""
    kept = {path: path.with_name(f".{path.name}.{os.getpid()}.old") for path in paths[:-1] if os.path.lexists(path)}
    replaced: list[Path] = []
    try:
        for path, old in kept.items():
            old.unlink(missing_ok=True)
            try:
                os.link(path, old, follow_symlinks=False)  # a second name costs no space; some file systems have none
            except OSError:
                shutil.copy2(path, old)
        for path, temporary in zip(paths, temporaries, strict=True):
            temporary.replace(path)
            replaced.append(path)
    except BaseException:
        for path in replaced:
            if path in kept:
                kept[path].replace(path)
            else:
                path.unlink()
        raise
    finally:
        for old in kept.values():
            old.unlink(missing_ok=True)


def _create(path: Path) -> int:
    """Create an empty file; return the permissions that the process's umask left it. (os.umask would change all threads'.)"""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file of unknown origin.

    Raises:
        InputError: unreadable, larger than `LARGEST_JSON` bytes, not JSON, nested deeper than `DEEPEST_JSON`, or no mapping.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(f"{path}: larger than {LARGEST_JSON >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply") from error
    except InputError:
        raise
    except ValueError as error:  # no JSON, no UTF-8, a number of thousands of digits
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping")
    if _depth(content) > DEEPEST_JSON:
        raise InputError(f"{path}: nested too deeply")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _depth(content: Any) -> int:
    """How deeply mappings and lists are nested."""
    depth, level = 0, [content]
    while level:
        depth += 1
        holders = [value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)]
        level = [inner for holder in holders for inner in holder if isinstance(inner, dict | list)]
    return depth


def fingerprint(*parts: object) -> str:
    """Return a short hash of JSON-serialisable parts; the same parts give the same hash on every machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
