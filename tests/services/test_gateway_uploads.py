"""Uploads of any size and name pass through the gateway in flat memory."""

import hashlib
import tracemalloc
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from clipwarden.api.client import Client
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.services.conftest import Serve

MEBIBYTE = 1024 * 1024


@pytest.fixture
def roomy(gateway_settings: Settings) -> Settings:
    return gateway_settings.model_copy(update={"max_upload_bytes": 512 * MEBIBYTE})


def peak_bytes(client: Client, path: Path, mebibytes: int) -> int:
    """Most memory that client and gateway, both in this process, held while the file was sent."""
    with path.open("wb") as file:
        file.truncate(mebibytes * MEBIBYTE)
    tracemalloc.start()
    view = client.submit(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert view.input.bytes == mebibytes * MEBIBYTE
    return peak


def test_memory_does_not_grow_with_the_upload(serve: Serve, roomy: Settings, tmp_path: Path) -> None:
    with serve(roomy) as url, Client(url) as client:
        peak_bytes(client, tmp_path / "warm.mp4", 1)
        small = peak_bytes(client, tmp_path / "small.mp4", 8)
        large = peak_bytes(client, tmp_path / "large.mp4", 128)

    assert large < 16 * MEBIBYTE
    assert large < small + 2 * MEBIBYTE


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("a\\b\\c.mp4", "c.mp4"),
        ("视\u202e频 ü🎬.mp4", "视频 ü🎬.mp4"),
        ("n" * 400, "n" * 255),
    ],
)
def test_a_hostile_file_name_is_only_ever_a_label(
    gateway: httpx.Client, blobs: LocalBlobs, store: Store, sent: str, shown: str
) -> None:
    reply = gateway.post("/v1/analyses", files={"file": (sent, b"content")})

    assert reply.status_code == 202
    assert reply.json()["input"]["filename"] == shown
    recorded = store.analysis(UUID(reply.json()["id"]))
    assert recorded is not None
    assert recorded.filename == shown
    assert [key.split("/")[0] for key in blobs.keys()] == ["uploads"]


def test_a_file_of_exactly_the_limit_is_taken(gateway: httpx.Client, gateway_settings: Settings) -> None:
    content = b"x" * gateway_settings.max_upload_bytes
    form = {"tag": "t" * 256, "metadata": '{"a": "' + "m" * 4086 + '"}'}

    reply = gateway.post("/v1/analyses", data=form, files={"file": ("a.mp4", content)})

    assert reply.status_code == 202
    assert reply.json()["input"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_chunked_upload_without_a_length_is_taken(gateway: httpx.Client) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    pieces = iter([head, *[b"x" * 1000] * 100, b"\r\n--b--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    reply = gateway.post("/v1/analyses", content=pieces, headers=headers)

    assert reply.status_code == 202
    assert reply.json()["input"]["bytes"] == 100_000
