"""A server on this machine that answers like the hub, for models and datasets."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Repo:
    """Files by name, at one commit that is also `main`."""

    files: dict[str, bytes]
    commit: str = COMMIT
    kind: str = "model"

    @classmethod
    def of_folder(cls, folder: Path, **more) -> Repo:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return cls({p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}, **more)

    def entry(self, name: str) -> dict:
        body = self.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": _tag(body)}


@dataclass
class Hub:
    """What is asked of the server stands in `asked`: names of files that were sent.

    `requests` holds every question, answered or not.
    """

    repos: Mapping[str, Repo]
    address: str = ""
    asked: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def environment(self, cache: Path, offline: bool = False) -> dict[str, str]:
        """The environment of a process that knows no other hub, and keeps what it fetches here."""
        kept = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE"):
            kept.pop(name, None)
        return kept | {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def local_hub(repos: Mapping[str, Repo]) -> Iterator[Hub]:
    """Serve `repos`, by their ids."""
    hub = Hub(repos)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _tag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """The answers that huggingface_hub and datasets need to read a repository."""

    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(b"")

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, sent: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for name, repo in self.hub.repos.items():
            place = f"datasets/{name}" if repo.kind == "dataset" else name
            if path.startswith(f"/{place}/resolve/"):
                return self._file(repo, path.removeprefix(f"/{place}/resolve/"))
            api = f"/api/{repo.kind}s/{name}"
            if path == api or path.startswith(f"{api}/"):
                return self._about(name, repo, path.removeprefix(api).strip("/"), sent)
        return self._missing("RepoNotFound")

    def _file(self, repo: Repo, rest: str) -> None:
        revision, _, name = rest.partition("/")
        if revision not in ("main", repo.commit):
            return self._missing("RevisionNotFound")
        headers = {"X-Repo-Commit": repo.commit}
        if name not in repo.files:
            return self._missing("EntryNotFound", headers)
        body = repo.files[name]
        if self.command == "GET":
            self.hub.asked.append(name)
        return self._send(200, body, headers | {"ETag": f'"{_tag(body)}"'})

    def _about(self, name: str, repo: Repo, rest: str, sent: bytes) -> None:
        what, _, rest = rest.partition("/")
        revision, _, folder = rest.partition("/")
        if what and revision not in ("main", repo.commit):
            return self._missing("RevisionNotFound")
        if what == "tree":
            return self._json(_listing(repo, folder, "recursive=true" in self.path.lower()))
        if what == "paths-info":
            wanted = _paths(sent)
            return self._json([entry for entry in _tree(repo) if entry["path"] in wanted])
        siblings = [{"rfilename": name} for name in repo.files]
        return self._json({"id": name, "sha": repo.commit, "siblings": siblings})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str, headers: Mapping[str, str] = {}) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, **headers})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree(repo: Repo) -> list[dict]:
    """Every file and folder."""
    folders = {str(parent) for name in repo.files for parent in Path(name).parents} - {"."}
    found = [{"type": "directory", "path": path, "oid": _tag(path.encode())} for path in folders]
    return found + [repo.entry(name) for name in repo.files]


def _listing(repo: Repo, folder: str, recursive: bool) -> list[dict]:
    inside = f"{folder}/" if folder else ""
    return [
        entry
        for entry in _tree(repo)
        if entry["path"].startswith(inside)
        and (recursive or "/" not in entry["path"].removeprefix(inside))
    ]


def _paths(sent: bytes) -> list[str]:
    try:
        paths = json.loads(sent)["paths"]
    except ValueError:
        from urllib.parse import parse_qs

        paths = parse_qs(sent.decode())["paths"]
    return [paths] if isinstance(paths, str) else paths
