"""What is tried again and what is not, and what is said when it did not help."""

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError

from vitdfq.common.errors import AccessError, InputError
from vitdfq.hub import retry
from vitdfq.hub.retry import tokenless, tried_again


@pytest.fixture(autouse=True)
def logged_in_and_impatient(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_dummy")
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0))


def answered(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


def failing(*errors: BaseException):
    """A call that fails with each of these in turn, then works; `calls` counts."""
    left = list(errors)

    def call() -> str:
        call.calls += 1
        if left:
            raise left.pop(0)
        return "done"

    call.calls = 0
    return call


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), *map(answered, (408, 409, 412, 429, 500, 503))], ids=repr)
def test_what_may_pass_is_tried_again(error, caplog):
    call = failing(error, error)
    assert tried_again("owner/name", call) == "done" and call.calls == 3
    assert caplog.text.count("owner/name: ") == 2


@pytest.mark.parametrize(
    ("error", "calls", "message"),
    [
        (answered(401), 1, "answered 401: no valid token: run `hf auth login`"),
        (answered(403), 1, "answered 403: this token may not write there"),
        (answered(404), 1, "answered 404: no such user"),
        (answered(409), 3, "answered 409: somebody else changes it right now"),
        (answered(418), 1, "answered 418: no"),
        (ConnectionResetError("reset"), 3, "(reset); the same command goes on"),
        (ConnectionError("https://hub/xet-write-token/main"), 1, "HF_HUB_DISABLE_XET=1 uploads without xet"),
    ],
    ids=repr,
)
def test_what_does_not_help_is_explained(error, calls, message):
    call = failing(*[error] * 4)
    with pytest.raises(AccessError) as caught:
        tried_again("owner/name", call)
    assert message in str(caught.value) and str(caught.value).startswith("owner/name: ") and call.calls == calls
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_what_happened_in_a_thread_that_uploads_is_seen():
    wrapped = RuntimeError("Error while uploading")
    wrapped.__cause__ = answered(403)
    with pytest.raises(AccessError, match="answered 403"):
        tried_again("owner/name", failing(wrapped))


def test_a_known_error_is_not_tried_again():
    call = failing(InputError("a card"))
    with pytest.raises(InputError, match="a card"):
        tried_again("owner/name", call)
    assert call.calls == 1


def test_patience_ends(monkeypatch):
    """The client tries for half a minute by itself, each time."""
    seconds = iter([0.0, 0.0, 30.0, 30.0])
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda wait: None))
    call = failing(*[answered(500)] * 4)
    with pytest.raises(AccessError, match="answered 500"):
        tried_again("owner/name", call)
    assert call.calls == 2


def test_a_token_in_a_message_is_covered():
    assert tokenless("Bearer  hf_dummy\nwas sent") == "Bearer (token) was sent"
    assert tokenless("x" * 195 + " hf_dummy").endswith("...") and "hf_d" not in tokenless("x" * 195 + " hf_dummy")
    assert tokenless(TimeoutError()) == "TimeoutError"
