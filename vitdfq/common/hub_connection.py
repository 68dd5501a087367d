"""Downloads from the Hugging Face Hub into its cache; without a connection only the cache is searched."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub import errors as hub_errors

from vitdfq.common.errors import AccessError, InputError, one_line

FROM_DISK = "give weights from disk with --set model.name=local-dir:PATH"
LOGIN = "run `hf auth login`, or set HF_TOKEN"


def fetch(repository: str, files: list[str], cache_dir: str | None = None) -> Path:
    """Return the folder in the Hub's cache that holds these files of `owner/name[@revision]`, all of one commit.

    Raises:
        AccessError: offline and not in the cache, not found, private or gated.
        ValueError: not a repository id.
    """
    try:
        return _download(repository, files, cache_dir)
    except AccessError as error:
        raise AccessError(f"no weights: hub repository {error}; or {FROM_DISK}") from error.__cause__


def download_snapshot(repository: str, patterns: list[str]) -> Path:
    """Download a checkpoint, `owner/name[@revision]`, as one snapshot (file by file, an offline cache could be incomplete).

    Raises:
        InputError: `repository` is neither a folder nor a repository id.
        AccessError: it cannot be reached, and the Hub's cache does not have it; it is private, gated or misspelt.
    """
    try:
        return _download(repository, patterns)
    except hub_errors.HFValidationError as error:
        raise InputError(f"{repository}: neither a folder nor a Hub repository id") from error
    except AccessError as error:
        name = repository.partition("@")[0]
        why = str(error).removeprefix(f"{repository} ")
        raise AccessError(f"{repository}: no such folder here, and the Hub repository {name} {why}") from error.__cause__


def _download(repository: str, patterns: list[str], cache_dir: str | None = None) -> Path:
    """The folder in the cache. AccessError says "REPOSITORY was not found ..." and the like."""
    name, _, revision = repository.partition("@")
    is_reachable = reachable(name)
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            cache_dir=cache_dir,
            allow_patterns=patterns,
            local_files_only=not is_reachable,
        )
    except hub_errors.HFValidationError:
        raise
    except (hub_errors.HTTPError, OSError) as error:
        raise AccessError(f"{repository} {_explain(error, name, revision, is_reachable)}") from error
    return Path(folder)


def _explain(error: BaseException, name: str, revision: str, is_reachable: bool) -> str:
    """What is wrong with a repository, as the end of a sentence that begins with it; the way out included."""
    if constants.HF_HUB_OFFLINE:
        return "could not be reached, since HF_HUB_OFFLINE is set, and the cache does not have it"
    if not is_reachable:
        return f"could not be reached at {constants.ENDPOINT}, and the cache does not have it"
    for cause in _causes(error):  # the client wraps answers that it does not expect
        if isinstance(cause, hub_errors.GatedRepoError):
            return f"is gated: accept its terms on {constants.ENDPOINT}/{name}, then {LOGIN}"
        if isinstance(cause, hub_errors.RevisionNotFoundError):
            return f"has no revision {revision!r}"
        if isinstance(cause, hub_errors.HfHubHTTPError):
            return _explain_status(cause.response.status_code, cause.response.headers.get("X-Error-Message", ""))
    return f"could not be read ({one_line(error)})"


def _explain_status(status: int, message: str) -> str:
    if status == 404 or (status == 401 and "credentials" not in message):  # 401: also of what is not there, without a token
        return f"was not found: it is misspelt, or private and needs a token that may read it ({LOGIN})"
    answer = f"could not be read: {constants.ENDPOINT} answered {status}"
    if status in (401, 403):
        return f"{answer}, the token is not valid or may not read it: {LOGIN}"
    return f"{answer}; try again later" if status == 429 or status >= 500 else answer


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def reachable(repository: str, repo_type: str = "model") -> bool:
    """Return whether the Hub answers a request for this repository, even with a refusal; False with HF_HUB_OFFLINE.

    One request of the Hub's own client, given up after HF_HUB_ETAG_TIMEOUT seconds. `snapshot_download` has no such limit: its
    first request waits for ever where packets are dropped, and a commit's list of files is retried for 23 seconds.

    Raises:
        ValueError: not a repository id.
    """
    try:
        HfApi().repo_info(repository, repo_type=repo_type, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except hub_errors.HfHubHTTPError:
        return True  # the download itself gets the reason
    except (hub_errors.HTTPError, OSError):  # the client's own errors are not all OSErrors; offline mode is one
        return False
    return True
