"""A hub on loopback that speaks the file protocol of Hugging Face's, and for each test a store of weights."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from clipwarden.models import weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """What is served, what goes wrong in which order, and what was asked for.

    Weights are answered by a redirect to another host, as large files are there.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commit: str | None = COMMIT
    faults: list[int] = field(default_factory=list)
    """For each GET of content: below 1000 a status to fail with, else after how many bytes to hang up; 0 is neither."""

    damaged: bool = False
    """Whether the last byte of what is sent is another than it should be."""

    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent_bytes: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        self.hub.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.path.startswith("/cdn/"):
            return self._content(self.path.removeprefix("/cdn/"), body)
        owner, repo, verb, revision, name = (*self.path.strip("/").split("/"), *[""] * 5)[:5]
        files = self.hub.repos.get(f"{owner}/{repo}")
        if files is None:
            return self._refuse(404, "RepoNotFound")
        if verb != "resolve" or revision not in {"main", self.hub.commit or COMMIT}:
            return self._refuse(404, "RevisionNotFound")
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        if not name.endswith(".json"):
            return self._empty(
                302, {**self._facts(files[name], large=True), "Location": self._elsewhere(owner, repo, name)}
            )
        return self._content(f"{owner}/{repo}/{name}", body)

    def _elsewhere(self, *parts):
        return f"http://localhost:{self.hub.port}/cdn/{'/'.join(parts)}"

    def _facts(self, content, large):
        """Headers of a file; git names small ones in its own way, and only large ones by their digest."""
        commit = {} if self.hub.commit is None else {"X-Repo-Commit": self.hub.commit}
        if not large:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return {**commit, "ETag": f'"{blob}"'}
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return {**commit, "ETag": etag, "X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}

    def _content(self, place, body):
        owner, repo, name = place.split("/")
        content = self.hub.repos[f"{owner}/{repo}"][name]
        fault = self.hub.faults.pop(0) if body and self.hub.faults else 0
        if 0 < fault < 1000:
            return self._refuse(fault, "ServerError")
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        for key, value in self._facts(content, not name.endswith(".json")).items():
            self.send_header(key, value)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            shown = (content[:-1] + bytes([content[-1] ^ 1]) if self.hub.damaged else content)[start : fault or None]
            self.wfile.write(shown)
            self.hub.sent_bytes += len(shown)
            self.close_connection = bool(fault)
        return None

    def _refuse(self, status, code):
        self._empty(status, {"X-Error-Code": code, "X-Error-Message": f"{code} here"})

    def _empty(self, status, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    served = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": served}))
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    yield served
    with suppress(OSError):
        server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this test's own manifest, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    weights.bring(None)
    yield tmp_path / "cache" / "clipwarden" / "weights"
    monkeypatch.undo()
    weights.bring(None)
