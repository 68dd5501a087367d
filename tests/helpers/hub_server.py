"""A Hugging Face Hub on this machine, in memory: the routes that uploads and downloads of a model use, and ways to fail."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TOKEN = "hf_dummy"
LARGE = (".safetensors", ".png", ".onnx")  # stored by their SHA-256, as the Hub does with binary files


def commit_name(number: int, repo: str) -> str:
    return hashlib.sha1(f"{number} {repo}".encode()).hexdigest()


@dataclass
class Repo:
    """A model repository: its commits, oldest first, each a whole tree of path -> bytes. The first is the Hub's own."""

    name: str
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.png filter=lfs\n"}])

    @property
    def head(self) -> str:
        return commit_name(len(self.commits), self.name)

    def tree(self, revision: str) -> dict[str, bytes]:
        names = {commit_name(number, self.name): files for number, files in enumerate(self.commits, start=1)}
        return names[self.head if revision == "main" else revision]


class Answer(Exception):  # noqa: N818 (not every answer is an error)
    """A response; a route raises it."""

    def __init__(self, content: object = None, status: int = 200, **headers: str) -> None:
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves at `hub.url`.

    steps: the routes that were requested, as named in `ROUTES`.
    fail: step -> status of the answer, or the status and headers.
    lose: steps at which the connection is lost, once each: "put" and "commit" in the middle of the request, "answer" after the
        commit is stored and before the response.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.steps: list[str] = []
        self.fail: dict[str, int | tuple[int, dict[str, str]]] = {}
        self.lose: list[str] = []
        self.lock = threading.Lock()

    def __enter__(self) -> "HubServer":
        threading.Thread(target=partial(self.serve_forever, poll_interval=0.02), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the tests."""

    def loses(self, step: str) -> bool:
        with self.lock:
            if step in self.lose:
                self.lose.remove(step)
                return True
        return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_request(self) -> None:
        path = urlsplit(self.path).path
        fitting = (
            step
            for step, (methods, pattern, _) in ROUTES.items()
            if self.command in methods.split() and re.fullmatch(pattern, path)
        )
        step = next(fitting, None)
        if step is None:
            return self.send(Answer({"error": "no such page"}, 404))
        self.server.steps.append(step)
        if self.server.loses(step):
            self.rfile.read(int(self.headers.get("Content-Length", 2)) // 2)
            self.close_connection = True
            return self.connection.close()
        self.body = self.read_body()
        try:
            if step in self.server.fail:
                failure = self.server.fail[step]
                status, headers = failure if isinstance(failure, tuple) else (failure, {})
                raise Answer({"error": f"failed on purpose, for {self.headers.get('Authorization')}"}, status, **headers)
            if step in NEED_TOKEN and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Answer({"error": "Invalid username or password."}, 401)
            with self.server.lock:
                _, pattern, answer = ROUTES[step]
                answer(self, **re.fullmatch(pattern, path).groupdict())
        except Answer as reply:
            if step == "commit" and reply.status == 200 and self.server.loses("answer"):
                self.close_connection = True
                return self.connection.close()
            self.send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815 (names that http.server wants)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, reply: Answer) -> None:
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def repo(self, name: str) -> Repo:
        if name not in self.server.repos:
            raise Answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        return self.server.repos[name]

    def whoami(self) -> None:
        raise Answer({"type": "user", "name": "owner", "orgs": []})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        errors = [] if "\nlicense: " in content else [{"message": '"license" is required'}]
        raise Answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self) -> None:
        request = json.loads(self.body)
        name = f"{request['organization']}/{request['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repos:
            raise Answer(url | {"error": "You already created this model repo"}, 409)
        self.server.repos[name] = Repo(name, private=request.get("visibility") == "private")
        raise Answer(url)

    def delete(self) -> None:
        request = json.loads(self.body)
        del self.server.repos[f"{request['organization']}/{request['name']}"]
        raise Answer({})

    def info(self, name: str, revision: str | None = None) -> None:
        repo = self.repo(name)
        files = [{"rfilename": path} for path in repo.tree("main")]
        raise Answer({"id": name, "sha": repo.head, "private": repo.private, "tags": [], "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        raise Answer([entry(path, content) for path, content in self.repo(name).tree(revision).items()])

    def preupload(self, name: str) -> None:
        there = self.repo(name).tree("main")
        files = []
        for file in json.loads(self.body)["files"]:
            large, old = file["path"].endswith(LARGE), there.get(file["path"])
            oid = None if old is None else sha256(old) if large else blob_name(old)
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise Answer({"files": files})

    def batch(self, name: str) -> None:
        objects = []
        for file in json.loads(self.body)["objects"]:
            actions = {action: {"href": f"{self.server.url}/large/{action}/{file['oid']}"} for action in ("upload", "verify")}
            objects.append(file | ({} if file["oid"] in self.server.large else {"actions": actions}))
        raise Answer({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise Answer({"error": "checksum"}, 400)
        self.server.large[oid] = self.body
        raise Answer(b"")

    def verify(self, oid: str) -> None:
        size = len(self.server.large.get(oid, b""))
        raise Answer({}, 200 if json.loads(self.body) == {"oid": oid, "size": size} else 404)

    def commit(self, name: str) -> None:
        repo = self.repo(name)
        files = dict(repo.commits[-1])
        for line in self.body.splitlines():
            key, value = (json.loads(line)[part] for part in ("key", "value"))
            if key == "header" and value.get("parentCommit", repo.head) != repo.head:
                raise Answer({"error": "A commit has happened since."}, 412)
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        repo.commits.append(files)
        raise Answer({"commitOid": repo.head, "commitUrl": f"{self.server.url}/{name}/commit/{repo.head}"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.repo(name)
        content, commit = repo.tree(revision).get(path), repo.head if revision == "main" else revision
        if content is None:
            raise Answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        headers = {"X_Repo_Commit": commit, "ETag": f'"{blob_name(content)}"'}
        if path.endswith(LARGE):
            headers |= {"X_Linked_ETag": f'"{sha256(content)}"', "X_Linked_Size": str(len(content))}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), int(part[2] or len(content) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            raise Answer(content[first : last + 1], 206, **headers)
        raise Answer(content, **headers)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, object]:
    facts: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": blob_name(content)}
    if path.endswith(LARGE):  # git stores a pointer to it
        facts |= {
            "oid": blob_name(sha256(content).encode()),
            "lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 130},
        }
    return facts


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>\w+)"
ROUTES: dict[str, tuple[str, str, Callable[..., None]]] = {  # step -> methods, path, answer
    "whoami": ("GET", "/api/whoami-v2", Handler.whoami),
    "validate": ("POST", "/api/validate-yaml", Handler.validate),
    "create": ("POST", "/api/repos/create", Handler.create),
    "delete": ("DELETE", "/api/repos/delete", Handler.delete),
    "preupload": ("POST", f"/api/models/{NAME}/preupload/main", Handler.preupload),
    "batch": ("POST", f"/{NAME}.git/info/lfs/objects/batch", Handler.batch),
    "put": ("PUT", "/large/upload/(?P<oid>[0-9a-f]{64})", Handler.put),
    "verify": ("POST", "/large/verify/(?P<oid>[0-9a-f]{64})", Handler.verify),
    "commit": ("POST", f"/api/models/{NAME}/commit/main", Handler.commit),
    "tree": ("GET", f"/api/models/{NAME}/tree/{REVISION}", Handler.tree),
    "info": ("GET", f"/api/models/{NAME}(/revision/{REVISION})?", Handler.info),
    "resolve": ("GET HEAD", f"/{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
}
NEED_TOKEN = {"whoami", "create", "delete", "preupload", "batch", "verify", "commit"}
