"""Serving metrics and health over HTTP, on a port of their own: `/metrics`, `/livez`, `/readyz`.

A worker's parent process serves what its pool processes counted: they write to a folder that outlives them, so that a
process that is killed takes no counts along. `share_counts` must come before `metrics` is imported.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import TYPE_CHECKING

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import PREFIX, Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

SHARED_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client knows that several processes count together."""
PATIENCE_S = 10.0
READY = "ready-"
LACKING = "lacking"
HANDED_BACK = "handed-back"


def share_counts() -> Path:
    """Have this process and those it starts count into one new folder. The caller deletes it."""
    folder = Path(tempfile.mkdtemp(prefix="clipwarden-metrics-"))
    os.environ[SHARED_COUNTS] = str(folder)
    return folder


def say_ready() -> None:
    """Note that this pool process has loaded what it needs."""
    if folder := os.environ.get(SHARED_COUNTS):
        Path(folder, f"{READY}{os.getpid()}").touch()


def say_lacking(what: Sequence[str]) -> None:
    """Note what of the published pipeline is not here; this worker's health says so until another look."""
    if folder := os.environ.get(SHARED_COUNTS):
        note = f"lacks of the published pipeline: {', '.join(what)}\n" if what else ""
        Path(folder, LACKING).write_text(note, encoding="utf-8")


def say_handed_back(reason: str) -> None:
    """Note that this worker gives work back which only another can do; its health says so from here on."""
    if folder := os.environ.get(SHARED_COUNTS):
        Path(folder, HANDED_BACK).write_text(f"handed back: {reason}\n", encoding="utf-8")


def pool_ready() -> bool:
    """Whether some process of this worker's pool is ready and alive."""
    return any(_alive(int(mark.name[len(READY) :])) for mark in Path(os.environ[SHARED_COUNTS]).glob(f"{READY}*"))


def expose(settings: Settings, registry: "CollectorRegistry", ready: Callable[[], bool] = lambda: True) -> None:
    """Serve what a registry holds until the process ends, if a port is set. Raises ConfigError if it cannot be had."""
    if not settings.metrics_port:
        return
    place = (settings.metrics_host, settings.metrics_port)
    try:
        server = (_Server6 if ":" in settings.metrics_host else _Server)(place, _handler(registry, ready))
    except OSError as error:
        raise ConfigError(f"{PREFIX}METRICS_PORT: nothing can be served on {place[0]}:{place[1]} ({error})") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # gone, or another's by now
        return False
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Whoever hangs up in the middle is not worth a traceback."""


class _Server6(_Server):
    address_family = AF_INET6


def _handler(registry: "CollectorRegistry", ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_S

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    kind, text = _metrics(registry)
                    self._answer(200, text, kind)
                case "/livez":
                    self._answer(200, b"alive\n")
                case "/readyz" if ready():
                    self._answer(200, b"ready\n" + _note(LACKING) + _note(HANDED_BACK))
                case "/readyz":
                    self._answer(503, b"not ready: models are being loaded, or a service is away; see the log\n")
                case _:
                    self._answer(404, b"there are /metrics, /livez and /readyz\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes and probes are not logged."""

    return Handler


def _note(name: str) -> bytes:
    note = Path(os.environ.get(SHARED_COUNTS, "/"), name)
    return note.read_bytes() if note.exists() else b""


def _metrics(registry: "CollectorRegistry") -> tuple[str, bytes]:
    """The content type and the text: the registry's metrics, and what this process uses."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

    process = CollectorRegistry()
    ProcessCollector(registry=process)
    told = _shared(registry) if SHARED_COUNTS in os.environ else registry
    return CONTENT_TYPE_LATEST, generate_latest(told) + generate_latest(process)


def _shared(registry: "CollectorRegistry") -> "CollectorRegistry":
    """What the processes that count together have counted, of the registry's metrics."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    ours = {metric.name for metric in registry.collect()}
    together = CollectorRegistry()

    class Ours(MultiProcessCollector):
        def collect(self) -> "Iterator[Metric]":
            return (metric for metric in super().collect() if metric.name in ours)  # type: ignore[no-untyped-call]

    Ours(together)  # type: ignore[no-untyped-call]
    return together
