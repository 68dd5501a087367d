"""Downloads from the Hugging Face Hub into its cache: the weights of a model, a checkpoint of this library."""

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, snapshot_download
from huggingface_hub import errors as hub_errors

from vitdfq.common.errors import AccessError, InputError, one_line

CONNECT_SECONDS = 3.0
FROM_DISK = "give weights from disk with --set model.name=local-dir:PATH"


def fetch(repository: str, files: list[str], cache_dir: str | None = None) -> Path:
    """Return the folder in the hub's cache that holds these files of `owner/name[@revision]`, downloading what is missing.

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
            local_files_only=not reachable(constants.ENDPOINT),
        )
    except hub_errors.GatedRepoError:
        why = f"it is gated: accept its terms on {constants.ENDPOINT}/{name}, then run `hf auth login`"
    except hub_errors.RepositoryNotFoundError:
        why = "not found, or private and no access with this token"
    except hub_errors.RevisionNotFoundError:
        why = f"it has no revision {revision!r}"
    except hub_errors.LocalEntryNotFoundError:
        why = f"{constants.ENDPOINT} could not be reached and the cache does not have it"
    except OSError as error:
        why = one_line(error, most=None)
    else:
        return Path(folder)
    raise AccessError(f"no weights from hub repository {repository}: {why}; {FROM_DISK}")


def download_snapshot(repository: str, patterns: list[str]) -> Path:
    """Fetch a checkpoint repository as one snapshot (fetched file by file, an offline cache can be incomplete).

    Raises:
        InputError: `repository` is neither a folder nor a repository id.
        AccessError: it could not be reached.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except hub_errors.HFValidationError as error:
        raise InputError(f"{repository}: neither a folder nor a Hub repository id") from error
    except (hub_errors.HfHubHTTPError, hub_errors.HTTPError, hub_errors.LocalEntryNotFoundError, OSError) as error:
        raise AccessError(f"{repository}: no such folder here, and the Hub repository could not be reached") from error


def reachable(endpoint: str) -> bool:
    """Return whether the hub can be asked. The hub's own client would retry for half a minute before it gave up."""
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True  # the proxy resolves names and connects; let the client try
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
