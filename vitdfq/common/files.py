"""Files that are never half-written: write beside the final name, then rename; and fingerprints of what shaped them."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vitdfq.common.errors import InputError, one_line
from vitdfq.runtime import distributed

LARGEST_JSON = 8 << 20  # the names of 21,000 classes and their descriptions take 3 MB
DEEPEST_JSON = 32


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` when the block ends without an exception.

    Of several processes only the main one writes: what another puts there is dropped.
    """
    if not distributed.is_main():
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a file, in the main process."""
    if not distributed.is_main():
        return
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file that a stranger may have written.

    Raises:
        InputError: unreadable, larger than `LARGEST_JSON` bytes, not JSON, nested deeper than `DEEPEST_JSON`, or no mapping.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(f"{path}: larger than {LARGEST_JSON >> 20} MiB; no such file of ours is")
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
    raise ValueError(f"{name} is no number")


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
