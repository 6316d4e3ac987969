"""A hub of our own on this machine: as much of the Hugging Face hub's API as pushing and fetching models takes.

It has commits, branches, private and gated repositories, tokens, large files, and the error answers of the real one
(`X-Error-Code` and all). `faults` makes it fail: {"status": 500}, {"cut": 100} (bytes after which a download ends),
{"flip": True} (a download with a wrong byte).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session

TOKEN, READER = "hf_writes", "hf_reads"


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        tree = before | files
        seed = repr((sorted((path, sha256(content)) for path, content in tree.items()), len(self.commits)))
        commit = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[commit], self.branches[branch] = tree, commit
        return commit

    def find(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".pt"))


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes], **how: bool) -> Repository:
        """A repository with files on its branch main."""
        self.repositories[name] = repository = Repository(**how)
        repository.commit("main", files)
        return repository

    def go_down(self) -> None:
        self.shutdown()
        self.server_close()
        self.faults["down"] = True
        close_session()  # the library keeps connections


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **more: str) -> None:
        self.status, self.code, self.message, self.more = status, code, message, more


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "down" in self.server.faults:
            self.close_connection = True
            return
        try:
            if "status" in self.server.faults:
                raise Refused(self.server.faults["status"])
            for method, pattern, act in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    act(self, *found.groups())
                    return
            raise Refused(404)
        except Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.answer(refused.status, json.dumps(refused.more).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    # --- what is asked for ---

    @property
    def token(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, READER):
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return token

    def to_write(self) -> None:
        if not self.token:
            raise Refused(401, "", "Invalid username or password.")
        if self.token != TOKEN:
            raise Refused(403, "", "You don't have the rights to write here")

    def repository(self, name: str) -> Repository:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.token):
            # strangers are not told which of the two it is
            raise Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def commit_of(self, name: str, revision: str | None) -> tuple[Repository, str]:
        repository = self.repository(name)
        commit = repository.find(revision or "main")
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def create(self) -> None:
        self.to_write()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.server.repositories:
            raise Refused(409, "", "You already created this model repo", url=f"{self.server.url}/{name}")
        self.server.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        self.json({"url": f"{self.server.url}/{name}"})

    def branch(self, name: str, branch: str) -> None:
        self.to_write()
        repository, commit = self.commit_of(name, None)
        if branch in repository.branches:
            raise Refused(409, "", "Reference already exists")
        repository.branches[branch] = commit
        self.json({})

    def preupload(self, name: str, revision: str) -> None:
        self.to_write()
        self.commit_of(name, revision)
        paths = [one["path"] for one in json.loads(self.body)["files"]]
        modes = [{"path": p, "uploadMode": "lfs" if is_large(p) else "regular", "shouldIgnore": False} for p in paths]
        self.json({"files": modes})

    def batch(self, name: str) -> None:
        self.to_write()
        objects = json.loads(self.body)["objects"]
        for one in objects:
            one["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        assert sha256(self.body) == oid
        self.server.large[oid] = self.body
        self.answer(200)

    def commit(self, name: str, revision: str) -> None:
        self.to_write()
        repository, _ = self.commit_of(name, revision)
        files: dict[str, bytes] = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = repository.commit(revision, files)
        self.json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit, "success": True})

    def info(self, name: str, revision: str | None = None) -> None:
        repository, commit = self.commit_of(name, revision)
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        self.json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        repository, commit = self.commit_of(name, revision)
        if repository.gated and self.token != TOKEN:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        self.json([self.entry(path, content) for path, content in repository.commits[commit].items()])

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
        if is_large(path):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        return entry

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository, commit = self.commit_of(name, revision)
        if repository.gated and self.token != TOKEN:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        content = repository.commits[commit].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        tag = sha256(content) if is_large(path) else oid(content)
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit}
        if is_large(path):
            headers |= {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(content))}
        if self.command == "HEAD":
            self.answer(200, content, headers)
            return
        if is_large(path) and "cut" in self.server.faults:
            self.close_connection = True
            content = content[: self.server.faults["cut"]]
        if is_large(path) and "flip" in self.server.faults:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.answer(200, content, headers)


REPO = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", lambda handler: handler.json({"errors": [], "warnings": []})),
    ("POST", f"/api/models/{REPO}/branch/(.+)", Handler.branch),
    ("POST", f"/api/models/{REPO}/preupload/(.+)", Handler.preupload),
    ("POST", f"/{REPO}\\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.upload),
    ("POST", f"/api/models/{REPO}/commit/(.+)", Handler.commit),
    ("GET", f"/api/models/{REPO}", Handler.info),
    ("GET", f"/api/models/{REPO}/revision/(.+)", Handler.info),
    ("GET", f"/api/models/{REPO}/tree/([^/]+)/?", Handler.tree),
    ("GET HEAD", f"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@contextmanager
def a_hub(cache: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serves a hub, and makes huggingface_hub talk to it as HF_ENDPOINT would, without a token and without waiting."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        constants = "huggingface_hub.constants"
        # these are read from the environment when the library is imported
        monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
        resolve = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(cache / "no-token"))
        monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
