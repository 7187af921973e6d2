"""The real gateway, served by uvicorn on a loopback port, in front of the session's Postgres and Valkey."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
import pytest
import structlog
import uvicorn

from clipwarden.api.app import SERVER, create_app
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Branch, DetectorState, Manifest, ManifestDetector
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests import media
from tests.desk import clip_of, examined

PIPELINE = f"sha256:{'a' * 64}"
MANIFEST = Manifest(
    detectors=(
        ManifestDetector(
            name="forensic_mlp",
            version="1",
            branch=Branch.VISUAL,
            state=DetectorState.READY,
            weights=f"sha256:{'1' * 64}",
        ),
        ManifestDetector(name="lipfd", version="1", branch=Branch.LIPSYNC, state=DetectorState.NO_WEIGHTS),
    ),
    faces="mtcnn",
    fusion=f"sha256:{'2' * 64}",
    policies=("balanced", "strict"),
)
MAX_UPLOAD = 1024 * 1024


class Serve(Protocol):
    def __call__(self, settings: Settings, port: int = 0) -> AbstractContextManager[str]: ...


@contextmanager
def served(settings: Settings, port: int = 0) -> Iterator[str]:
    """The base URL of a gateway that runs in a thread until the context ends."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(create_app(settings), **SERVER)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started, "the gateway did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session", autouse=True)
def logs_to_pytest() -> None:
    """Without this an unconfigured structlog prints to stdout, and every traceback with all its locals."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@pytest.fixture
def serve() -> Serve:
    return served


@pytest.fixture
def gateway_settings(settings: Settings, store: Store) -> Settings:
    """An installation with a published pipeline and a small upload limit."""
    store.publish(PIPELINE, MANIFEST)
    return settings.model_copy(update={"max_upload_bytes": MAX_UPLOAD})


@pytest.fixture
def gateway_url(gateway_settings: Settings) -> Iterator[str]:
    with served(gateway_settings) as url:
        yield url


@pytest.fixture
def gateway(gateway_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def blobs(gateway_settings: Settings) -> LocalBlobs:
    return LocalBlobs(gateway_settings.blobs)


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    """Bytes that the gateway has no opinion on."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.fixture
def submitted(gateway: httpx.Client, clip_file: Path) -> UUID:
    with clip_file.open("rb") as file:
        return UUID(gateway.post("/v1/analyses", files={"file": file}).raise_for_status().json()["id"])


@pytest.fixture(scope="session")
def playable(media_dir: Path) -> Path:
    """Two seconds in codecs that every Chromium plays."""
    return media.write_clip(media_dir / "playable.webm", media.faces(50, 160, 120), media.speech(2))


@pytest.fixture
def send(gateway: httpx.Client, playable: Path) -> Callable[..., UUID]:
    """Sends a clip and returns its analysis."""

    def send(name: str = "holiday.webm", content: bytes | None = None, **fields: Any) -> UUID:
        file = (name, playable.read_bytes() if content is None else content)
        reply = gateway.post("/v1/analyses", files={"file": file}, data={"reuse": "false", **fields})
        return UUID(reply.raise_for_status().json()["id"])

    return send


@pytest.fixture
def shown(store: Store, blobs: LocalBlobs, send: Callable[..., UUID]) -> UUID:
    """An analysis with everything that the page can show."""
    analysis_id = send()
    examined(store, blobs, analysis_id, clip_of(2.0))
    return analysis_id
