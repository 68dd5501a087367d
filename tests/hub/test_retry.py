"""Which failures are tried again, and the message of those that remain."""

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError

from vitdfq.common.errors import AccessError, InputError
from vitdfq.hub import retry as module
from vitdfq.hub.retry import retry, without_token


@pytest.fixture(autouse=True)
def logged_in_and_impatient(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_dummy")
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0))


def answered(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


def failing(*errors: BaseException):
    """Return a function that raises each of these errors in turn, then returns; `calls` counts its calls."""
    left = list(errors)

    def call() -> str:
        call.calls += 1
        if left:
            raise left.pop(0)
        return "done"

    call.calls = 0
    return call


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), *map(answered, (408, 409, 412, 429, 500, 503))], ids=repr)
def test_transient_errors_are_tried_again(error, caplog):
    call = failing(error, error)
    assert retry("owner/name", call) == "done" and call.calls == 3
    assert [record.message.partition(": ")[0] for record in caplog.records if record.name == "vitdfq"] == ["owner/name"] * 2


@pytest.mark.parametrize(
    ("error", "calls", "message"),
    [
        (answered(401), 1, "answered 401: no valid token: run `hf auth login`"),
        (answered(403), 1, "answered 403: this token may not write there"),
        (answered(404), 1, "answered 404: no such user"),
        (answered(409), 3, "answered 409: the repository is being changed by somebody else"),
        (answered(418), 1, "answered 418: no"),
        (ConnectionResetError("reset"), 3, "(reset); the same command goes on"),
        (ConnectionError("https://hub/xet-write-token/main"), 1, "HF_HUB_DISABLE_XET=1 uploads without xet"),
    ],
    ids=repr,
)
def test_permanent_errors_are_explained(error, calls, message):
    call = failing(*[error] * 4)
    with pytest.raises(AccessError) as caught:
        retry("owner/name", call)
    assert message in str(caught.value) and str(caught.value).startswith("owner/name: ") and call.calls == calls
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_an_error_of_an_upload_thread_is_recognized():
    wrapped = RuntimeError("Error while uploading")
    wrapped.__cause__ = answered(403)
    with pytest.raises(AccessError, match="answered 403"):
        retry("owner/name", failing(wrapped))


def test_errors_of_this_package_are_not_tried_again():
    call = failing(InputError("a card"))
    with pytest.raises(InputError, match="a card"):
        retry("owner/name", call)
    assert call.calls == 1


def test_patience_ends(monkeypatch):
    """The client itself may try for half a minute in each attempt."""
    seconds = iter([0.0, 0.0, 30.0, 30.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda wait: None))
    call = failing(*[answered(500)] * 4)
    with pytest.raises(AccessError, match="answered 500"):
        retry("owner/name", call)
    assert call.calls == 2


def test_a_token_in_a_message_is_replaced():
    assert without_token("Bearer  hf_dummy\nwas sent") == "Bearer (token) was sent"
    assert without_token("x" * 195 + " hf_dummy").endswith("...") and "hf_d" not in without_token("x" * 195 + " hf_dummy")
    assert without_token(TimeoutError()) == "TimeoutError"
