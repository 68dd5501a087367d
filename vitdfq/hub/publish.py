"""Publish a finished run on the Hugging Face Hub: its checkpoint and what describes it, in one commit."""

import hashlib
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, validate_repo_id

import vitdfq
from vitdfq.common.errors import AccessError, InputError
from vitdfq.common.files import read_json, sha256
from vitdfq.hub.model_card import CHECKPOINT_FILES, EXPORTED
from vitdfq.hub.retry import check_token, tokenless, tried_again

logger = logging.getLogger(__name__)

SEALED = ("config.json", "model.safetensors", "recipe.yaml")
ALWAYS = [name for name in CHECKPOINT_FILES if "*" not in name]
REPORTS = "reports/"


def push(folder: str | Path, repo: str, *, private: bool = False) -> dict[str, Any]:
    """Put a finished run's checkpoint on the Hub, in one commit; none, if all of it is there already.

    Files of an earlier push that this run does not have are removed; others in the repository are left alone. The token is
    the one that huggingface_hub finds: HF_TOKEN or the saved login. A lost connection is tried again, safely: each commit
    names the one it follows, and what arrived is not sent twice.

    Args:
        folder: what `run` left.
        repo: `owner/name`; made if it is not there.
        private: whether only those allowed see it; a repository that is public already is refused then.

    Returns:
        repo, commit (its hash), url, and files (paths in the repository).

    Raises:
        InputError: not a finished run, damaged or changed since it was measured, a bad name, a card that is not valid.
        AccessError: offline, no token, no right to write, or the connection was lost for good.
    """
    check_repo(repo)
    files = _files(Path(folder))
    card = _card(Path(folder) / "README.md")
    check_token()
    with _bars_on_terminals_only():
        commit = tried_again(repo, lambda: _publish(repo, files, card, private))
    return {"repo": repo, "commit": commit, "url": f"{constants.ENDPOINT}/{repo}", "files": sorted(files)}


def seal(folder: Path) -> dict[str, str]:
    """Checksums of what was measured; metrics.json keeps them, so that nothing else is published under its numbers."""
    return {name: sha256(folder / name) for name in SEALED}


def check_repo(repo: str) -> None:
    """Refuse a name that is not `owner/name`; no network.

    Raises:
        InputError: with what is wrong about it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is not a Hub repository owner/name ({error})") from None
    if "/" not in repo:
        raise InputError(f"{repo!r} is not a Hub repository owner/name: its owner is missing")


def _files(folder: Path) -> dict[str, Path]:
    """Path in the repository -> file, of all that is published."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for name in ALWAYS:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; only what `vitdfq run` has finished can be pushed")
    measured = read_json(folder / "metrics.json").get("sha256")
    measured = measured if isinstance(measured, dict) else {}
    for name, found in seal(folder).items():
        if measured.get(name) != found:
            raise InputError(
                f"{folder / name}: damaged, or not what metrics.json was measured with; `vitdfq run` measures it again"
            )
    paths = [*(folder / name for name in (*ALWAYS, EXPORTED)), *(folder / REPORTS).rglob("*")]
    names = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {name: path for name, path in names.items() if not re.search(r"(^|/)\.", name)}


def _card(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path)
    except Exception as error:  # whatever its YAML parser and its checks come up with
        raise InputError(f"{path}: its header is not valid ({tokenless(error)})") from None


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    before = are_progress_bars_disabled()
    if not logger.isEnabledFor(logging.INFO) or not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _publish(repo: str, files: dict[str, Path], card: ModelCard, private: bool) -> str:
    """Make the repository equal to the files; return the commit. Doing it again does nothing."""
    api = HfApi(library_name="vitdfq", library_version=vitdfq.__version__)
    try:
        card.validate()
    except HfHubHTTPError:
        raise
    except ValueError as error:
        raise InputError(f"README.md: {constants.ENDPOINT} refuses its header ({tokenless(error)})") from None
    api.create_repo(repo, private=private, exist_ok=True)
    head = api.model_info(repo)
    if private and not head.private:
        raise AccessError(f"{repo}: is public already; make it private in its settings, or push without --private")
    operations = _changes(api, repo, head.sha, files)
    if not operations:
        logger.info(f"{repo}: holds all of it; no new commit")
        return head.sha
    message = f"Checkpoint by vitdfq {vitdfq.__version__}"
    return api.create_commit(repo, operations, commit_message=message, parent_commit=head.sha).oid


def _changes(api: HfApi, repo: str, revision: str, files: dict[str, Path]) -> list[CommitOperationAdd | CommitOperationDelete]:
    there = {
        file.path: file for file in api.list_repo_tree(repo, recursive=True, revision=revision) if isinstance(file, RepoFile)
    }
    added = [name for name in files if name not in there or not _same(there[name], files[name])]
    left = [name for name in there if name not in files and (name == EXPORTED or name.startswith(REPORTS))]
    return [*(CommitOperationAdd(name, files[name]) for name in added), *map(CommitOperationDelete, left)]


def _same(there: RepoFile, path: Path) -> bool:
    if there.size != path.stat().st_size:
        return False
    if there.lfs is not None:
        return there.lfs.sha256 == sha256(path)
    content = path.read_bytes()  # small: git's own name for it
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
