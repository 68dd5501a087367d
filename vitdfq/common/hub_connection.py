"""Downloads from the Hugging Face Hub into its cache; without a connection only the cache is searched."""

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub import errors as hub_errors

from vitdfq.common.errors import AccessError, InputError, one_line

FROM_DISK = "give weights from disk with --set model.name=local-dir:PATH"


def fetch(repository: str, files: list[str], cache_dir: str | None = None) -> Path:
    """Return the folder in the Hub's cache that holds these files of `owner/name[@revision]`, all of one commit.

    Raises:
        AccessError: offline and not in the cache, not found, private or gated.
        ValueError: not a repository id.
    """
    name, _, revision = repository.partition("@")
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            cache_dir=cache_dir,
            allow_patterns=files,
            local_files_only=not reachable(name),
        )
    except hub_errors.GatedRepoError:
        why = f"it is gated: accept its terms on {constants.ENDPOINT}/{name}, then run `hf auth login`"
    except hub_errors.RepositoryNotFoundError:
        why = "not found, or private and no access with this token"
    except hub_errors.RevisionNotFoundError:
        why = f"it has no revision {revision!r}"
    except hub_errors.LocalEntryNotFoundError:
        why = f"{constants.ENDPOINT} could not be reached and the cache does not have it"
    except (hub_errors.HTTPError, OSError) as error:
        why = one_line(error, most=None)
    else:
        return Path(folder)
    raise AccessError(f"no weights from hub repository {repository}: {why}; {FROM_DISK}")


def download_snapshot(repository: str, patterns: list[str]) -> Path:
    """Download a checkpoint repository as one snapshot (file by file, an offline cache could be incomplete).

    Raises:
        InputError: `repository` is neither a folder nor a repository id.
        AccessError: it cannot be reached, and the Hub's cache does not have it.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=not reachable(repository)))
    except hub_errors.HFValidationError as error:
        raise InputError(f"{repository}: neither a folder nor a Hub repository id") from error
    except (hub_errors.HfHubHTTPError, hub_errors.HTTPError, hub_errors.LocalEntryNotFoundError, OSError) as error:
        raise AccessError(f"{repository}: no such folder here, and the Hub repository could not be reached") from error


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
