"""`fetch` against a server on this machine that answers like the hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_models import build

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
EXTRA = {"README.md": b"# a model", "onnx/model.onnx": b"x" * 100, "pytorch_model.bin": b"y" * 100}


class _Hub(BaseHTTPRequestHandler):
    """The four kinds of answer that a download needs; `files` and `asked` are set by the test."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name"):
            rest = path.removeprefix("/api/models/org/name")
            if rest.startswith("/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(body), "oid": "0" * 40}
                    for name, body in self.files.items()
                ]
                return self._send(200, json.dumps(tree).encode(), {})
            if rest not in ("", "/revision/main", f"/revision/{COMMIT}"):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            return self._send(200, json.dumps(info).encode(), {})
        for revision in ("main", COMMIT):
            prefix = f"/org/name/resolve/{revision}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in self.files:
                body = self.files[path.removeprefix(prefix)]
                if self.command == "GET":
                    self.asked.append(path.removeprefix(prefix))
                tag = hashlib.sha1(body).hexdigest()
                return self._send(200, body, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, body: bytes, headers: dict) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    folder = build("bert", tmp_path / "model")
    files = {item.name: item.read_bytes() for item in folder.iterdir()}
    handler = type("Hub", (_Hub,), {"files": {**files, **EXTRA}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


CODE = """
import json, sys
from probeline.models.load import fetch, load_model
spec = {**json.loads(sys.argv[1]), "dtype": "float32"}
print(fetch(spec))
print(load_model(spec).revision)
"""


def run(tmp_path: Path, address: str, offline: bool = False, **spec) -> subprocess.CompletedProcess:
    environment = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-c", CODE, json.dumps({"path": "org/name", **spec})],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
    )


def test_fetch_pins_a_commit_and_takes_only_what_is_used(hub, tmp_path):
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    done = run(tmp_path, address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [COMMIT, COMMIT]
    asked = hub.RequestHandlerClass.asked
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(asked)
    assert not set(EXTRA) & set(asked)
    # Later processes find everything in the cache, with no hub at all.
    for revision in (None, COMMIT):
        again = run(tmp_path, "http://127.0.0.1:9", offline=True, revision=revision)
        assert again.stdout.split() == [COMMIT, COMMIT], again.stderr


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"path": "org/other"}, "org/other: no such folder here and no such model on the hub"),
        ({"revision": "v9"}, "org/name: the hub has no revision 'v9' of it"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, spec, words):
    done = run(tmp_path, f"http://127.0.0.1:{hub.server_address[1]}", **spec)
    assert words in done.stderr.strip().splitlines()[-1]


def test_no_network(tmp_path):
    for offline in (True, False):
        done = run(tmp_path, "http://127.0.0.1:9", offline=offline)
        line = done.stderr.strip().splitlines()[-1]
        assert "not in the local hub cache and the hub cannot be reached" in line
        assert "probeline fetch" in line
