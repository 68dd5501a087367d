"""`vitdfq push`: the real command and the real huggingface_hub, against a Hub on this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, HubServer
from safetensors.torch import load_file, save_file

import vitdfq
from vitdfq.recipe import load_recipe

RECIPE = {
    "name": "small",
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "noise", "num_images": 4},
    "calibrate": {"steps": ["observe"]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "num_images": 50},
}
REPORTS = [f"reports/{name}" for name in ("images.json", "index.html", "synthetic_grid.png", "unit_sqnr.json", "unit_sqnr.png")]
FILES = ["README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml", *REPORTS]
HUB_FILE = ".gitattributes"
LOAD = (
    "import sys, torch, vitdfq; from safetensors.torch import load_file, save_file; "
    "x = load_file(sys.argv[2])['x']; save_file({'y': vitdfq.load(sys.argv[1])(x)}, sys.argv[3])"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    vitdfq.run(RECIPE, out=folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def command(hub, tmp_path):
    """Run Python with `arguments`, logged in at the local Hub; in every case the token must not be printed."""

    def run(*arguments: object, **changes: str | None) -> subprocess.CompletedProcess:
        login = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        variables = {**os.environ, **login, "HF_HUB_OFFLINE": None, **changes}
        environment = {name: value for name, value in variables.items() if value is not None}
        done = subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)
        assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def push(command, folder):
    def run(*arguments: object, **changes: str | None) -> subprocess.CompletedProcess:
        return command("-m", "vitdfq", "push", folder, "--repo", "owner/name", *arguments, **changes)

    return run


def pushed(hub: HubServer) -> list[dict[str, bytes]]:
    """Return the repository's files after each commit, but for the Hub's first."""
    return hub.repos["owner/name"].commits[1:]


def the_error(done: subprocess.CompletedProcess, code: int) -> str:
    *_, last = done.stderr.strip().splitlines()
    assert done.returncode == code and not done.stdout and last.startswith("error: "), done.stderr
    return last


def test_one_commit_with_exactly_the_checkpoint(hub, push, folder):
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"graph")
    (folder / "notes.txt").write_text("mine")
    (folder / "reports/.hidden").write_text("mine")
    done = push("--format", "json")
    files = sorted([*FILES, "onnx/model.onnx"])
    head = hub.repos["owner/name"].head
    assert json.loads(done.stdout) == {"repo": "owner/name", "commit": head, "url": f"{hub.url}/owner/name", "files": files}
    assert not done.stderr and not hub.repos["owner/name"].private
    [commit] = pushed(hub)
    assert sorted(commit) == sorted([HUB_FILE, *files])
    assert all(commit[name] == (folder / name).read_bytes() for name in files)
    assert hub.steps[:2] == ["validate", "create"]  # an invalid card must not leave an empty repository


def test_loads_back_by_its_name_with_bit_equal_logits(hub, push, command, folder, tmp_path):
    assert push("--private").returncode == 0 and hub.repos["owner/name"].private
    images = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    save_file({"x": images}, tmp_path / "x.safetensors")
    done = command("-c", LOAD, "owner/name", tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], vitdfq.load(folder)(images))


def test_pushing_again_commits_what_changed_and_nothing_else(hub, push, folder):
    push()
    hub.repos["owner/name"].commits[-1] |= {"reports/old.png": b"old", "LICENSE": b"mine", "onnx/model.onnx": b"old"}
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    hub.steps.clear()
    done = push()
    assert done.stdout.splitlines() == [f"{hub.url}/owner/name", f"{len(FILES)} files, commit {hub.repos['owner/name'].head}"]
    assert len(pushed(hub)) == 2 and "put" not in hub.steps
    assert sorted(pushed(hub)[-1]) == sorted([HUB_FILE, "LICENSE", *FILES])
    assert pushed(hub)[-1]["README.md"].endswith(b"More.\n")
    again = push()
    assert again.stdout == done.stdout and "no new commit" in again.stderr and len(pushed(hub)) == 2


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "lost",
    [["commit"], ["create", "answer"], pytest.param(["put"], marks=SLOW), pytest.param(["answer"], marks=SLOW)],
    ids=" ".join,
)
def test_a_lost_connection_is_tried_again_and_makes_one_commit(lost, hub, push):
    hub.lose = lost
    done = push("--format", "json")
    assert done.returncode == 0 and done.stderr, done.stderr
    [commit] = pushed(hub)
    assert sorted(commit) == sorted([HUB_FILE, *FILES]) and not hub.lose
    assert json.loads(done.stdout)["commit"] == hub.repos["owner/name"].head


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ({"create": 401, "info": 401}, "answered 401: no valid token: run `hf auth login`, or set HF_TOKEN"),
        ({"create": 403, "info": 404}, "answered 403: this token may not write there"),
        ({"create": 404}, "answered 404: no such user or organization"),
        ({"commit": 403}, "answered 403: this token may not write there"),
        ({"preupload": 400}, "answered 400: failed on purpose, for Bearer (token)"),
    ],
    ids=str,
)
def test_a_refusal_of_the_hub_is_one_line(fail, message, hub, push):
    hub.fail = fail
    assert f"error: owner/name: {hub.url} {message}" in the_error(push(VITDFQ_DEBUG="1"), 4)
    assert not any(map(pushed, [hub] * ("owner/name" in hub.repos)))


def test_a_commit_of_somebody_else_in_between_is_kept(hub, push, monkeypatch):
    push()
    repo, tree = hub.repos["owner/name"], type(hub.repos["owner/name"]).tree

    def tree_before_their_commit(self, revision):
        files = tree(self, revision)
        if hub.steps[-1] == "tree" and len(self.commits) == 2:
            self.commits.append(files | {"LICENSE": b"theirs"})
        return files

    monkeypatch.setattr(type(repo), "tree", tree_before_their_commit)
    repo.commits[-1] = repo.commits[-1] | {"metrics.json": b"{}"}  # so that there is something to push
    done = push()
    assert done.returncode == 0 and "answered 412" in done.stderr
    assert len(repo.commits) == 4 and repo.commits[-1]["LICENSE"] == b"theirs" and repo.commits[-1]["metrics.json"] != b"{}"


def test_a_private_push_to_a_public_repository_is_refused(hub, push):
    push()
    error = the_error(push("--private"), 4)
    assert "owner/name: is public already" in error and len(pushed(hub)) == 1


def test_a_card_that_the_hub_refuses_makes_no_repository(hub, push, folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: ", "licence: "))
    assert 'refuses its header ({"errors": [{"message": "\\"license\\" is required"}]' in the_error(push(), 2)
    assert hub.steps == ["validate"]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "out: no such folder"),
        (
            lambda folder: (folder / "metrics.json").unlink(),
            "metrics.json: no such file; only a run that `vitdfq run` has finished",
        ),
        (lambda folder: (folder / "README.md").unlink(), "README.md: no such file"),
        (lambda folder: damage(folder / "model.safetensors"), "model.safetensors: damaged, or not what metrics.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: damaged, or not what metrics.json"),
        (lambda folder: (folder / "recipe.yaml").write_text("name: small\n"), "recipe.yaml: damaged, or not what metrics.json"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "metrics.json: cannot be read"),
        (lambda folder: (folder / "README.md").write_text("---\na: [\n---\n"), "README.md: its header is not valid"),
    ],
    ids=["folder", "metrics", "card", "weights", "config", "recipe", "metrics not JSON", "card not YAML"],
)
def test_an_unfinished_or_changed_run_is_refused_before_any_request(spoil, message, folder, monkeypatch):
    """In this process, which is offline: a request would raise another error."""
    spoil(folder)
    with pytest.raises(vitdfq.common.errors.InputError) as caught:
        vitdfq.push(folder, "owner/name")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("repo", ["name", "owner/", "a/b/c", "owner/na me", "owner/../name", "https://huggingface.co/owner/name"])
def test_a_repository_is_owner_and_name(repo, folder):
    with pytest.raises(vitdfq.common.errors.InputError, match="is not a Hub repository owner/name") as caught:
        vitdfq.push(folder, repo)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HF_TOKEN": None}, "no token for http://127.0.0.1:{port}: run `hf auth login`"),
        ({"HF_TOKEN": "hf_du\x01mmy"}, "holds characters that no token has"),
        ({"HF_TOKEN": "hf_another"}, "answered 401: no valid token"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:{closed}"}, "lost http://127.0.0.1:{closed} ("),
        ({"HF_HUB_DISABLE_XET": "0"}, "HF_HUB_DISABLE_XET=1 uploads without xet"),
    ],
    ids=["no token", "broken token", "wrong token", "offline", "unreachable", "no xet"],
)
def test_no_access_is_one_line(changes, message, hub, push):
    if "HF_HUB_DISABLE_XET" in changes:
        pytest.importorskip("hf_xet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        known = {"port": hub.server_port, "closed": free.getsockname()[1]}
    done = push(**{name: value and value.format(**known) for name, value in changes.items()})
    assert message.format(**known) in the_error(done, 4)
    assert not any(token in done.stderr for token in ("hf_another", "hf_du"))


def test_a_run_pushes_at_its_end_and_resumes_there(hub, command, folder, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"push": {"repo": "owner/name", "private": True}}, sort_keys=False))
    arguments = ("-m", "vitdfq", "run", recipe, "--out", folder, "--format", "json")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    hub.fail = {"commit": 403}
    assert "answered 403" in the_error(command(*arguments), 4)
    assert (folder / "metrics.json").is_file()
    hub.fail = {}
    hub.steps.clear()
    done = command(*arguments)
    assert done.returncode == 0 and f"published: {hub.url}/owner/name" in done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "metrics.json").read_text())
    [commit] = pushed(hub)
    assert hub.repos["owner/name"].private and sorted(commit) == sorted([HUB_FILE, *FILES])
    assert (folder / "model.safetensors").stat().st_mtime_ns == before and "put" not in hub.steps
    # a published recipe must not upload to the same place when somebody runs it
    assert "push" not in yaml.safe_load(commit["recipe.yaml"]) and b'vitdfq.load("owner/name")' in commit["README.md"]
    assert load_recipe(folder / "recipe.yaml").push == {}


def test_a_run_that_cannot_push_is_refused_before_it_starts(tmp_path):
    with pytest.raises(vitdfq.common.errors.AccessError, match="HF_HUB_OFFLINE is set"):
        vitdfq.run(RECIPE | {"push": {"repo": "owner/name"}}, out=tmp_path / "new")
    assert not (tmp_path / "new/stages").exists()


@pytest.mark.hub
@pytest.mark.skipif(os.environ.get("VITDFQ_HUB_E2E") != "1", reason="set VITDFQ_HUB_E2E=1 and HF_TOKEN to use the real Hub")
def test_the_real_hub(folder, tmp_path):
    """Creates a private repository in the token's namespace and deletes it. Run with `-m hub`."""
    code = (
        "import sys, uuid, torch, vitdfq; from huggingface_hub import HfApi; api = HfApi()\n"
        "repo = f\"{api.whoami()['name']}/vitdfq-test-{uuid.uuid4().hex[:8]}\"\n"
        "try:\n"
        "    first = vitdfq.push(sys.argv[1], repo, private=True)\n"
        "    again = vitdfq.push(sys.argv[1], repo, private=True)\n"
        "    assert first == again and len(api.list_repo_commits(repo)) == 2\n"
        "    assert set(first['files']) | {'.gitattributes'} == set(api.list_repo_files(repo))\n"
        "    x = torch.randn(2, 3, 28, 28)\n"
        "    assert torch.equal(vitdfq.load(repo)(x), vitdfq.load(sys.argv[1])(x))\n"
        "finally:\n"
        "    api.delete_repo(repo, missing_ok=True)\n"
    )
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-c", code, folder], env=online, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
