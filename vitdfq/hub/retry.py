"""Talking to the Hugging Face Hub: with a token that is never shown, tried again when that is safe, each failure one line."""

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second: of the client that it is built on

from vitdfq.common.errors import AccessError, VitdfqError, one_line

logger = logging.getLogger(__name__)

T = TypeVar("T")
WAITS, PATIENCE = (0.5, 1.0, 2.0), 20.0  # seconds; the client itself may have tried for half a minute before the first failure
LOGIN = "run `hf auth login`, or set HF_TOKEN, with a token that may write"
BUSY = "somebody else changes it right now; the same command tries again"
HINTS = {
    401: f"no valid token: {LOGIN}",
    403: f"this token may not write there: {LOGIN}",
    404: "no such user or organisation, or this token does not see it",
    409: BUSY,
    412: BUSY,
}
MAY_PASS = (None, 408, 409, 412, 429, 500, 502, 503, 504)  # None: the connection was lost
CLIENT_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)  # the last two: of threads that upload, of answers without sense


def check_token() -> None:
    """Refuse what cannot work; no network.

    Raises:
        AccessError: offline by HF_HUB_OFFLINE, or no token.
    """
    if constants.HF_HUB_OFFLINE:
        raise AccessError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    token = get_token()
    if not token:
        raise AccessError(f"no token for {constants.ENDPOINT}: {LOGIN}")
    if not re.fullmatch(r"[!-~]+", token):  # the client would refuse it, and show it
        raise AccessError(f"the token for {constants.ENDPOINT} holds characters that no token has: {LOGIN}")


def tried_again(repo: str, do: Callable[[], T]) -> T:
    """What `do` returns; called again, a few times, when the Hub did not answer or was busy. Twice must be as good as once.

    Raises:
        AccessError: what the Hub said, or that it was lost; without the token, whoever put it there.
    """
    until = float("inf")
    for wait in (*WAITS, None):
        try:
            return do()
        except VitdfqError:
            raise
        except CLIENT_ERRORS as error:
            until = min(until, time.monotonic() + PATIENCE)
            hopeless = _status(error) not in MAY_PASS or _by_xet(error)
            if hopeless or wait is None or time.monotonic() > until:
                raise AccessError(f"{repo}: {_explained(error)}") from None  # its own text can hold what was sent
            logger.info(f"{repo}: {_what(error)}; looking what arrived, then trying again")
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def tokenless(said: object) -> str:
    """A message in one line, without the token."""
    text, token = one_line(said, most=None), get_token()
    return one_line(text.replace(token, "(token)") if token else text)


def _explained(error: BaseException) -> str:
    if _by_xet(error):
        return f"{tokenless(error)}; HF_HUB_DISABLE_XET=1 uploads without xet"
    status = _status(error)
    if status is None:
        return f"{_what(error)}; the same command goes on"
    said = getattr(error, "server_message", None) or error
    return f"{_what(error)}: {HINTS.get(status) or tokenless(said)}"


def _what(error: BaseException) -> str:
    status = _status(error)
    return f"lost {constants.ENDPOINT} ({tokenless(error)})" if status is None else f"{constants.ENDPOINT} answered {status}"


def _status(error: BaseException | None) -> int | None:
    """What the server answered; None if it did not, or not to the end."""
    while error is not None:  # threads that upload wrap what happened to them
        if isinstance(error, HfHubHTTPError):
            return error.response.status_code
        error = error.__cause__
    return None


def _by_xet(error: BaseException) -> bool:
    return re.search(r"xet-\w+-token|xethub|hf_xet", f"{error!r} {error.__cause__!r}") is not None
