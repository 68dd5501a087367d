"""Requests to the Hugging Face Hub: tried again where that is safe, every failure in one line, the token never in a message."""

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second is the HTTP client's

from vitdfq.common.errors import AccessError, VitdfqError, one_line

logger = logging.getLogger("vitdfq")
T = TypeVar("T")
WAITS, PATIENCE = (0.5, 1.0, 2.0), 20.0  # seconds; the client itself may have tried for half a minute before the first failure
LOGIN = "run `hf auth login`, or set HF_TOKEN, with a token that may write"
BUSY = "the repository is being changed by somebody else; the same command tries again"
HINTS = {
    401: f"no valid token: {LOGIN}",
    403: f"this token may not write there: {LOGIN}",
    404: "no such user or organization, or this token does not see it",
    409: BUSY,
    412: BUSY,
}
TRANSIENT = (None, 408, 409, 412, 429, 500, 502, 503, 504)  # None: the connection was lost
CLIENT_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)  # the last two: of upload threads, of answers that are not JSON


def check_token() -> None:
    """Check that an upload could be authorized; no network.

    Raises:
        AccessError: offline by HF_HUB_OFFLINE, or no token.
    """
    if constants.HF_HUB_OFFLINE:
        raise AccessError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    token = get_token()
    if not token:
        raise AccessError(f"no token for {constants.ENDPOINT}: {LOGIN}")
    if not re.fullmatch(r"[!-~]+", token):  # the client would refuse it with a message that contains it
        raise AccessError(f"the token for {constants.ENDPOINT} holds characters that no token has: {LOGIN}")


def retry(repo: str, request: Callable[[], T]) -> T:
    """Return `request()`; repeat it a few times when the connection is lost or the Hub is busy.

    Args:
        repo: begins each message.
        request: must have the same effect whether it is called once or twice.

    Raises:
        AccessError: the Hub's answer, or the lost connection, without the token.
    """
    until = float("inf")
    for wait in (*WAITS, None):
        try:
            return request()
        except VitdfqError:
            raise
        except CLIENT_ERRORS as error:
            until = min(until, time.monotonic() + PATIENCE)
            permanent = _status(error) not in TRANSIENT or _by_xet(error)
            if permanent or wait is None or time.monotonic() > until:
                raise AccessError(f"{repo}: {_explain(error)}") from None  # the error's own text can hold the request
            logger.warning("%s: %s; checking what arrived, then trying again", repo, _describe(error))
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def without_token(message: object) -> str:
    """Return a message in one line, the token replaced."""
    text, token = one_line(message, most=None), get_token()
    return one_line(text.replace(token, "(token)") if token else text)


def _explain(error: BaseException) -> str:
    if _by_xet(error):
        return f"{without_token(error)}; HF_HUB_DISABLE_XET=1 uploads without xet"
    status = _status(error)
    if status is None:
        return f"{_describe(error)}; the same command goes on"
    answer = getattr(error, "server_message", None) or error
    return f"{_describe(error)}: {HINTS.get(status) or without_token(answer)}"


def _describe(error: BaseException) -> str:
    status = _status(error)
    return f"lost {constants.ENDPOINT} ({without_token(error)})" if status is None else f"{constants.ENDPOINT} answered {status}"


def _status(error: BaseException | None) -> int | None:
    """Return the status of the server's answer; None without a complete answer."""
    while error is not None:  # upload threads wrap their errors
        if isinstance(error, HfHubHTTPError):
            return error.response.status_code
        error = error.__cause__
    return None


def _by_xet(error: BaseException) -> bool:
    return re.search(r"xet-\w+-token|xethub|hf_xet", f"{error!r} {error.__cause__!r}") is not None
