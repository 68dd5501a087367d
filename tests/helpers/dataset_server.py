"""A Hub of datasets on this machine: the routes that `datasets` and `huggingface_hub` use to list and read a repository."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "1" * 40
RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?")


class Hub(ThreadingHTTPServer):
    """Serves `repos`: id -> folder. `gated` maps an id to the status that refuses its files. `log` lists the requests:
    ("METHOD", path in the repository or URL, bytes sent)."""

    daemon_threads = True

    def __init__(self, repos: dict[str, Path], gated: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.gated, self.log = repos, gated, []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def sent(self, part: str) -> int:
        """Bytes sent of files whose path contains `part`."""
        return sum(size for method, path, size in list(self.log) if method == "GET" and part in path)


@contextmanager
def serving(repos: dict[str, Path], gated: dict[str, int] | None = None) -> Iterator[Hub]:
    hub = Hub(repos, gated or {})
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(unquote(self.path))
        if match := RESOLVE.fullmatch(url.path):
            return self.file(*match.groups())
        if match := API.fullmatch(url.path):
            return self.api(*match.groups())
        return self.refuse(404, "EntryNotFound", url.path)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        match = API.fullmatch(urlsplit(unquote(self.path)).path)
        if not match or match[2] != "paths-info":
            return self.refuse(404, "EntryNotFound", self.path)
        if not self.allowed(match[1]):
            return None
        names = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        folder = self.server.repos[match[1]]
        paths = [folder / name for name in names]
        return self.answer([self.entry(folder, path) for path in paths if path.exists()])

    def api(self, repo: str, kind: str | None, revision: str | None, path: str) -> None:
        if not self.allowed(repo, listing=kind != "tree"):
            return None
        folder = self.server.repos[repo]
        if kind == "tree":
            top = folder / path
            if not top.is_dir():
                return self.refuse(404, "EntryNotFound", path)
            recursive = "recursive=true" in self.path.lower()
            return self.answer([self.entry(folder, file) for file in sorted(top.rglob("*") if recursive else top.iterdir())])
        if revision not in (None, "main", COMMIT):
            return self.refuse(404, "RevisionNotFound", str(revision))
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
        facts = {"id": repo, "sha": COMMIT, "private": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        return self.answer(facts | {"gated": "auto" if repo in self.server.gated else False, "siblings": siblings})

    def entry(self, folder: Path, path: Path) -> dict[str, object]:
        name = str(path.relative_to(folder))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": _sha(name.encode()), "size": 0}
        return {"type": "file", "path": name, "oid": _sha(path.read_bytes()), "size": path.stat().st_size}

    def file(self, repo: str, _revision: str, name: str) -> None:
        if not self.allowed(repo, listing=False):
            return None
        path = self.server.repos[repo] / name
        if not path.is_file():
            return self.refuse(404, "EntryNotFound", name)
        content, status, headers = path.read_bytes(), 200, {}
        etag = f'"{_sha(content)}"'
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(content)}", 206
            content = content[first : last + 1]
        return self.send(status, content, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"} | headers, name)

    def allowed(self, repo: str, listing: bool = True) -> bool:
        """Without access to a gated repository its existence and its card are visible all the same."""
        if repo not in self.server.repos:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif repo in self.server.gated and not listing and not self.path.endswith(".md"):
            status = self.server.gated[repo]
            self.refuse(
                status, "GatedRepo", f"Access to dataset {repo} is restricted. You must have access to it and be authenticated."
            )
        else:
            return True
        return False

    def answer(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, self.path)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": message}, self.path)

    def send(self, status: int, content: bytes, headers: dict[str, str], name: str) -> None:
        self.server.log.append((self.command, name, len(content) if self.command == "GET" else 0))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
