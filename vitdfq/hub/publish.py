"""Publish a finished run on the Hugging Face Hub: its checkpoint, metrics and reports, in one commit."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    filter_repo_objects,
    validate_repo_id,
)

from vitdfq.checkpoint.save_load import CHECKPOINT_FILES, EXPORTED
from vitdfq.common.errors import AccessError, InputError
from vitdfq.common.files import read_json, sha256
from vitdfq.common.version import __version__
from vitdfq.hub.retry import check_token, retry, without_token

logger = logging.getLogger("vitdfq")
SEALED = ("config.json", "model.safetensors", "recipe.yaml")
REQUIRED = [name for name in CHECKPOINT_FILES if "*" not in name]
OPTIONAL = [*(name for name in CHECKPOINT_FILES if "*" in name), EXPORTED]
HIDDEN = (".*", "*/.*")


def push(folder: str | Path, repo: str, *, private: bool = False) -> dict[str, Any]:
    """Upload a finished run's checkpoint to the Hub in one commit; no commit, if the repository holds all of it.

    Reports and exports of an earlier push that this run does not have are removed; other files in the repository are left
    alone. The token is the one that huggingface_hub uses: HF_TOKEN or the saved login. After a lost connection the upload is
    tried again. A second attempt cannot commit twice: each commit names its parent, and unchanged files are not sent again.

    Args:
        folder: the folder of a finished `run`.
        repo: `owner/name`; created if it does not exist.
        private: create it as private; a repository that is public already is refused.

    Returns:
        repo, commit (its hash), url, and files (paths in the repository).

    Raises:
        InputError: not a finished run, damaged or changed since it was measured, a bad name, an invalid card.
        AccessError: offline, no token, no right to write, or every attempt lost its connection.
    """
    check_repo(repo)
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"push takes the folder of a finished run, not a {type(folder).__name__}")
    folder = Path(folder)
    files = _check_run(folder)
    card = _card(folder / "README.md")
    check_token()
    with _progress_bars():
        commit = retry(repo, lambda: _publish(repo, folder, card, private))
    return {"repo": repo, "commit": commit, "url": f"{constants.ENDPOINT}/{repo}", "files": files}


def seal(folder: Path) -> dict[str, str]:
    """Return checksums of the measured files; metrics.json keeps them, so that its numbers go with these files only."""
    return {name: sha256(folder / name) for name in SEALED}


def check_repo(repo: str) -> None:
    """Check that `repo` reads `owner/name`; no network.

    Raises:
        InputError: with the reason.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is not a Hub repository owner/name ({error})") from None
    if "/" not in repo:
        raise InputError(f"{repo!r} is not a Hub repository owner/name: its owner is missing")


def _check_run(folder: Path) -> list[str]:
    """Check that the folder holds a finished, unchanged run; return the sorted paths of the files to publish."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; only a run that `vitdfq run` has finished can be pushed")
    measured = read_json(folder / "metrics.json").get("sha256")
    measured = measured if isinstance(measured, dict) else {}
    for name, checksum in seal(folder).items():
        if measured.get(name) != checksum:
            raise InputError(
                f"{folder / name}: damaged, or not what metrics.json was measured with; `vitdfq run` measures it again"
            )
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return list(filter_repo_objects(paths, allow_patterns=[*REQUIRED, *OPTIONAL], ignore_patterns=list(HIDDEN)))


def _card(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path)
    except Exception as error:  # its YAML parser and its checks raise many types
        raise InputError(f"{path}: its header is not valid ({without_token(error)})") from None


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Bars of the Hub's client on a terminal, and only where vitdfq's own progress messages appear too."""
    before = are_progress_bars_disabled()
    if not (logger.isEnabledFor(logging.INFO) and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _publish(repo: str, folder: Path, card: ModelCard, private: bool) -> str:
    """Upload what differs from the repository; return its newest commit. A second call commits nothing."""
    api = HfApi(library_name="vitdfq", library_version=__version__)
    try:
        card.validate()  # first: an invalid card must not leave an empty repository
    except HfHubHTTPError:
        raise
    except ValueError as error:
        raise InputError(f"README.md: {constants.ENDPOINT} refuses its header ({without_token(error)})") from None
    api.create_repo(repo, private=private, exist_ok=True)
    head = api.model_info(repo)
    if private and not head.private:
        raise AccessError(f"{repo}: is public already; make it private in its settings, or push without --private")
    commit = api.upload_folder(  # one commit: the client splits uploads of more than 200 files only
        repo_id=repo,
        folder_path=folder,
        allow_patterns=[*REQUIRED, *OPTIONAL],
        ignore_patterns=list(HIDDEN),  # a copy: upload_folder appends to it
        delete_patterns=OPTIONAL,
        parent_commit=head.sha,  # refused if the repository has changed since; the next attempt sees the change
        commit_message=f"Checkpoint by vitdfq {__version__}",
    )
    if commit.oid == head.sha:
        logger.info("%s: holds all of it; no new commit", repo)
    return commit.oid
