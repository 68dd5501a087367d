"""Weights from the Hugging Face hub, into its cache: config.json and model.safetensors of one commit, nothing else."""

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, snapshot_download
from huggingface_hub import errors as hub_errors

from vitdfq.common.errors import AccessError, one_line
from vitdfq.models.weights import WEIGHTS

CONNECT_SECONDS = 3.0
FROM_DISK = "give weights from disk with --set model.name=local-dir:PATH"


def fetch(repository: str, cache_dir: str | None = None) -> Path:
    """Return the folder in the hub's cache that holds `owner/name[@revision]`, downloading what is missing.

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
            allow_patterns=["config.json", WEIGHTS],
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
