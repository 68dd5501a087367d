"""The hub, without one: what is cached is found, what is not is one line with a way out, at once."""

import shutil
import socket

import pytest
from huggingface_hub import constants

from vitdfq.common.errors import AccessError, InputError
from vitdfq.common.hub_connection import reachable
from vitdfq.models import load_teacher

COMMIT = "0" * 40
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


def cached(cache, repository: str, folder) -> None:
    """Lay a folder into a hub cache as the hub's client does."""
    repo = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "deit_tiny_patch16_224.fb_in1k", "swin_s3_tiny_224"])
def test_out_of_reach_is_one_line_with_a_way_out(name, tmp_path):
    with pytest.raises(AccessError, match=r"could not be reached.*--set model.name=local-dir:PATH") as caught:
        load_teacher(name, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_no_network_is_noticed_by_one_attempt(tmp_path, monkeypatch):
    """The hub's own client tries again for over 20 seconds."""
    attempts, connect = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *to, **options: attempts.append(to) or connect(*to, **options))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr("vitdfq.common.hub_connection.getproxies", dict)
    with pytest.raises(AccessError, match=f"{NOWHERE} could not be reached"):
        load_teacher("hf-hub:someone/model", cache_dir=tmp_path)
    assert attempts == [(("127.0.0.1", 9),)]


def test_a_proxy_is_trusted_to_reach_what_this_machine_cannot(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitdfq.common.hub_connection.getproxies", lambda: {"https": "http://proxy:3128"})
    assert reachable(NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not reachable(NOWHERE)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", f"hf-hub:someone/model@{COMMIT}"])
def test_a_cached_repository_needs_no_network(name, folder, tmp_path):
    cached(tmp_path / "cache", "someone/model", folder)
    model = load_teacher(name, cache_dir=tmp_path / "cache").vitdfq["model"]
    assert model["name"] == name
    assert model["pretrained_cfg"]["hf_hub_id"] == name.removeprefix("hf-hub:")


def test_cached_weights_of_a_timm_name_need_no_network(folder, tmp_path):
    cached(tmp_path / "cache", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", folder)
    with pytest.raises(InputError, match=r"model.safetensors: the weights do not fit vit_tiny_patch16_224"):
        load_teacher("vit_tiny_patch16_224", cache_dir=tmp_path / "cache")  # found; the toy is not that model


def test_a_cached_pickle_is_not_opened(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    cached(tmp_path / "cache", "someone/model", folder)
    with pytest.raises(InputError, match=r"pytorch_model.bin but no model.safetensors"):
        load_teacher("hf-hub:someone/model", cache_dir=tmp_path / "cache")


def test_cached_weights_are_looked_at_first(folder, tmp_path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    cached(tmp_path / "cache", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", folder)
    with pytest.raises(InputError, match=r"model.safetensors: damaged or truncated"):
        load_teacher("vit_tiny_patch16_224", cache_dir=tmp_path / "cache")


def test_a_name_that_is_no_repository(tmp_path):
    with pytest.raises(ValueError, match="a/b/c"):
        load_teacher("hf-hub:a/b/c", cache_dir=tmp_path)
