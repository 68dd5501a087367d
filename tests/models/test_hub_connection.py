"""The Hub without a connection: cached repositories load, others are refused in one line, without waiting."""

import re
import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from hub_server import TOKEN, HubServer, Repo
from huggingface_hub import constants
from tiny import TINY
from transformers_folders import write_folder

from vitdfq.checkpoint import load, save_load
from vitdfq.checkpoint.save_load import describe
from vitdfq.common.errors import AccessError, InputError
from vitdfq.common.hub_connection import reachable
from vitdfq.models import load_teacher

COMMIT = "0" * 40
CLOSED = "http://127.0.0.1:9"  # no server listens on this port
TIMM_REPOSITORY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small ViT as timm stores models."""
    torch.manual_seed(0)
    architecture, arguments = TINY["vit"]
    model = timm.create_model(architecture, num_classes=5, **arguments)
    timm.models.save_for_hf(model, tmp_path / "tiny", model_args=arguments, safe_serialization=True)
    return tmp_path / "tiny"


@pytest.fixture
def connect(monkeypatch):
    """Set the Hub's address and leave offline mode; waiting for a retry fails the test."""

    def to(endpoint: str, proxy: str | None = None) -> None:
        huggingface_hub.close_session()  # the client reads the proxy when it is created
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        if proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("a request was tried again"))
    yield to
    huggingface_hub.close_session()


def cached(cache, repository: str, folder) -> None:
    """Store a folder in a Hub cache as the Hub's client does."""
    repo = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "deit_tiny_patch16_224.fb_in1k", "swin_s3_tiny_224"])
def test_offline_and_not_cached_is_one_line_with_a_way_out(name, tmp_path):
    with pytest.raises(
        AccessError, match=r"could not be reached, since HF_HUB_OFFLINE is set.*--set model.name=local-dir:PATH"
    ) as caught:
        load_teacher(name, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["hf-hub:someone/model", f"hf-hub:someone/model@{COMMIT}"])
def test_a_refused_connection_is_not_tried_again(name, tmp_path, connect):
    connect(CLOSED)
    with pytest.raises(AccessError, match=f"could not be reached at {CLOSED}, and the cache"):
        load_teacher(name, cache_dir=tmp_path)


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(tmp_path, connect, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connect(endpoint := f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(AccessError, match=f"could not be reached at {endpoint}"):
            load_teacher("hf-hub:someone/model", cache_dir=tmp_path)


def test_a_refusal_is_an_answer(connect):
    with HubServer() as hub:
        connect(hub.url)
        assert reachable("owner/absent") and reachable("owner/absent", "dataset")
        hub.fail = {"info": 500}
        assert reachable("owner/absent")
    connect(hub.url)
    assert not reachable("owner/absent")


def test_the_clients_proxy_is_used(connect):
    with HubServer() as hub:  # a proxy gets the whole address, and so does this server
        connect("http://nowhere.invalid", proxy=hub.url)
        assert reachable("owner/absent") and hub.steps == ["info"]
        connect("http://nowhere.invalid", proxy=CLOSED)
        assert not reachable("owner/absent")


@pytest.mark.parametrize("name", ["hf-hub:someone/model", f"hf-hub:someone/model@{COMMIT}"])
def test_a_cached_repository_needs_no_network(name, folder, tmp_path):
    cached(tmp_path / "cache", "someone/model", folder)
    model = load_teacher(name, cache_dir=tmp_path / "cache").vitdfq["model"]
    assert model["name"] == name
    assert model["pretrained_cfg"]["hf_hub_id"] == name.removeprefix("hf-hub:")


def test_cached_weights_of_a_timm_name_need_no_network(folder, tmp_path):
    cached(tmp_path / "cache", TIMM_REPOSITORY, folder)
    with pytest.raises(InputError, match=r"model.safetensors: the weights do not fit vit_tiny_patch16_224"):
        load_teacher("vit_tiny_patch16_224", cache_dir=tmp_path / "cache")  # read from the cache, and too small


def test_a_cached_pickle_is_not_opened(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    cached(tmp_path / "cache", "someone/model", folder)
    with pytest.raises(InputError, match=r"pytorch_model.bin but no model.safetensors"):
        load_teacher("hf-hub:someone/model", cache_dir=tmp_path / "cache")


def test_cached_weights_are_checked_before_they_are_loaded(folder, tmp_path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    cached(tmp_path / "cache", TIMM_REPOSITORY, folder)
    with pytest.raises(InputError, match=r"model.safetensors: damaged or truncated"):
        load_teacher("vit_tiny_patch16_224", cache_dir=tmp_path / "cache")


def test_a_name_that_is_not_a_repository(tmp_path):
    with pytest.raises(ValueError, match="a/b/c"):
        load_teacher("hf-hub:a/b/c", cache_dir=tmp_path)


def a_repository(hub: HubServer, folder: Path, name: str = "someone/model") -> Repo:
    """Put a folder on the Hub, as the newest commit of a repository."""
    repo = Repo(name, private=False)
    repo.commits.append({path.name: path.read_bytes() for path in folder.iterdir()})
    hub.repos[name] = repo
    return repo


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"info": 404}, "was not found: it is misspelt, or private"),
        ({"info": (404, {"X-Error-Code": "RepoNotFound"})}, "was not found: it is misspelt, or private"),
        ({"info": (401, {})}, "was not found: it is misspelt, or private"),  # the Hub's answer without a token
        (
            {"info": (401, {"X-Error-Message": "Invalid credentials in Authorization header"})},
            "answered 401, the token is not valid or may not read it: run `hf auth login`",
        ),
        ({"info": (403, {"X-Error-Code": "GatedRepo"})}, "is gated: accept its terms on http"),
        ({"resolve": (403, {"X-Error-Code": "GatedRepo"})}, "is gated: accept its terms on http"),  # its page is public
        ({"resolve": 403}, "answered 403, the token is not valid or may not read it"),
        ({"info": 403}, "answered 403, the token is not valid or may not read it"),
        ({"info": 429}, "answered 429; try again later"),
        ({"info": 503}, "answered 503; try again later"),
        ({"info": (404, {"X-Error-Code": "RevisionNotFound"})}, "has no revision 'v2'"),
    ],
    ids=str,
)
def test_a_refusal_is_not_called_a_lost_connection(answer, why, folder, connect, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client itself tries an answer of 429 and 503 again
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer() as hub:
        a_repository(hub, folder)
        hub.fail = answer
        connect(hub.url)
        for call in (
            lambda: load_teacher("hf-hub:someone/model@v2", cache_dir=tmp_path),
            lambda: load("someone/model@v2"),
            lambda: describe("someone/model@v2"),
        ):
            with pytest.raises(AccessError, match=re.escape(why)) as caught:
                call()
            message = str(caught.value)
            assert "someone/model" in message and "\n" not in message and "could not be reached" not in message
            assert TOKEN not in message


def test_a_revision_can_be_loaded(folder, connect, tmp_path):
    with HubServer() as hub:
        repo = a_repository(hub, folder)
        old = repo.head
        repo.commits.append({"config.json": b"{}"})
        connect(hub.url)
        assert load_teacher(f"hf-hub:someone/model@{old}", cache_dir=tmp_path).num_classes == 5
        with pytest.raises(InputError, match='names no "architecture"'):
            load_teacher("hf-hub:someone/model", cache_dir=tmp_path)


def test_a_repository_of_transformers(connect, tmp_path):
    model = write_folder("vit", tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    files["preprocessor_config.json"] = b'{"image_mean": [0.25, 0.25, 0.25], "image_std": [0.5, 0.5, 0.5]}'
    files |= {"pytorch_model.bin": b"", "vocab.json": b"{}"}
    llm = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"never downloaded"}
    with HubServer() as hub:
        hub.repos["someone/vit"] = Repo("someone/vit", private=False, commits=[files])
        hub.repos["someone/llm"] = Repo("someone/llm", private=False, commits=[llm])
        connect(hub.url)
        teacher = load_teacher("hf-hub:someone/vit", cache_dir=tmp_path)
        with pytest.raises(InputError, match="is a transformers model of type 'llama'"):
            load_teacher("hf-hub:someone/llm", cache_dir=tmp_path)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(teacher(images), model(images))
    assert teacher.vitdfq["model"]["name"] == "hf-hub:someone/vit" and teacher.pretrained_cfg["mean"] == [0.25] * 3
    downloaded = {path.name for path in tmp_path.glob("models--*/snapshots/*/*")}
    assert downloaded == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert [path.name for path in tmp_path.glob("models--someone--llm/snapshots/*/*")] == ["config.json"]


def test_a_revision_of_a_checkpoint(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(save_load, "download_snapshot", lambda repository, patterns: asked.append(repository) or tmp_path)
    for call in (lambda: load("owner/name", revision="v1"), lambda: load("owner/name@v1"), lambda: describe("owner/name@v1")):
        with pytest.raises(InputError, match=r"config\.json"):
            call()
    assert asked == ["owner/name@v1"] * 3
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path, revision="v1")
    with pytest.raises(ValueError, match="names a revision already"):
        load("owner/name@v1", revision="v2")
