"""Every bad request gets a problem document that says what to do, and leaves nothing in the blob store."""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import create_engine, text

from clipwarden.api import receiving
from clipwarden.api.receiving import FILE_FIELD
from clipwarden.shared.blobs import BlobWriter, LocalBlobs
from clipwarden.shared.errors import StorageFull
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.services.conftest import MAX_UPLOAD

PROBLEM = {"type", "title", "status", "detail", "instance", "code", "request_id"}
BOUNDARY = "frontier"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(params=["/v1/analyses", "/analyze"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind(gateway: httpx.Client, blobs: LocalBlobs, store: Store) -> Iterator[None]:
    yield
    assert list(blobs.keys()) == []
    assert store.due(everything=True) == []
    assert gateway.get("/livez").status_code == 200


def refused(reply: httpx.Response, status: int, code: str) -> str:
    """The detail of the problem document that the reply must be."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert set(body) == PROBLEM
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:clipwarden:problem:{code}"
    assert body["request_id"] == reply.headers["X-Request-ID"]
    return str(body["detail"])


def part(name: str, content: bytes, filename: str | None = "a.mp4") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def test_an_empty_file_is_refused(gateway: httpx.Client, route: str) -> None:
    detail = refused(gateway.post(route, files={"file": ("a.mp4", b"")}), 422, "invalid")

    assert detail == "The file is empty; check the upload and send it again."


def test_another_field_name_is_refused_with_the_right_one(gateway: httpx.Client, route: str) -> None:
    assert "'file'" in refused(gateway.post(route, files={"video": ("a.mp4", b"x")}), 422, "invalid")


WRONG_FORMS = [
    (END, "'file'"),
    (part("tag", b"x", None) + END, "'file'"),
    (part("file", b"x", None) + END, "as a file"),
    (part("file", b"x") + part("file", b"y") + END, "one file"),
    (part("file", b"x") + part("tag", b"a", None) + part("tag", b"b", None) + END, "twice"),
    (part("tag", b"a" * 257, None) + part("file", b"x") + END, "256"),
    (part("tag", b"\xff", None) + part("file", b"x") + END, "UTF-8"),
    (part("tag", b"a\0b", None) + part("file", b"x") + END, "NUL"),
    (part("metadata", b'{"a": "' + b"b" * 4096 + b'"}', None) + part("file", b"x") + END, "4096"),
    (part("metadata", b"[1]", None) + part("file", b"x") + END, "JSON object"),
    (part("metadata", b"{", None) + part("file", b"x") + END, "valid JSON"),
    (part("metadata", b'{"a": NaN}', None) + part("file", b"x") + END, "valid JSON"),
    (part("metadata", b'{"a": 1e999}', None) + part("file", b"x") + END, "valid JSON"),
    (part("metadata", b'{"a": "\\ud800"}', None) + part("file", b"x") + END, "valid JSON"),
    (part("metadata", b'{"a": "\\u0000"}', None) + part("file", b"x") + END, "NUL"),
    (part("metadata", b'{"a": ' + b"[" * 1500 + b"]" * 1500 + b"}", None) + part("file", b"x") + END, "metadata"),
]


def test_a_wrong_form_is_refused_with_what_to_change(gateway: httpx.Client) -> None:
    for body, told in WRONG_FORMS:
        reply = gateway.post("/v1/analyses", content=body, headers=MULTIPART)
        assert told in refused(reply, 422, "invalid"), body[:200]


BROKEN_FORMS = [
    b"",
    b"not a form",
    part("file", b"x" * 100),
    part("file", b"x" * 100)[:-1],
    f"--{BOUNDARY}\r\n".encode(),
    f"--{BOUNDARY}\r\n{'H' * 100_000}".encode(),
    f"--{BOUNDARY}\r\n".encode() + b"A: b\r\n" * 1000,
]


def test_a_broken_form_is_a_bad_request(gateway: httpx.Client) -> None:
    for body in BROKEN_FORMS:
        refused(gateway.post("/v1/analyses", content=body, headers=MULTIPART), 400, "bad_request")


def test_a_body_that_is_no_form_is_an_unsupported_type(gateway: httpx.Client, route: str) -> None:
    for content_type in ("", "text/plain", "application/xml", "multipart/mixed; boundary=a"):
        reply = gateway.post(route, content=b"hello", headers={"Content-Type": content_type})
        assert FILE_FIELD in refused(reply, 415, "unsupported_media_type")


def test_a_form_without_a_usable_boundary_is_a_bad_request(gateway: httpx.Client) -> None:
    for boundary in ("", "; boundary=", '; boundary=""', '; boundary=" "', f"; boundary={'b' * 5000}"):
        reply = gateway.post("/v1/analyses", content=b"--", headers={"Content-Type": f"multipart/form-data{boundary}"})
        assert "boundary" in refused(reply, 400, "bad_request")


def test_a_file_over_the_limit_is_refused(gateway: httpx.Client, route: str) -> None:
    detail = refused(gateway.post(route, files={"file": ("a.mp4", b"x" * (MAX_UPLOAD + 1))}), 413, "too_large")

    assert str(MAX_UPLOAD) in detail


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(gateway_url: str) -> None:
    head = (
        "POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n"
        f"Content-Type: {MULTIPART['Content-Type']}\r\n\r\n"
    )
    with socket.create_connection((urlsplit(gateway_url).hostname, urlsplit(gateway_url).port), 10) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(gateway: httpx.Client, route: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield part("file", b"x")[:-2]
        while sent < 64 * MAX_UPLOAD:
            sent += 65536
            yield b"x" * 65536

    refused(gateway.post(route, content=endless(), headers=MULTIPART), 413, "too_large")
    assert sent < 64 * MAX_UPLOAD


def test_a_preamble_of_any_length_is_counted_too(gateway: httpx.Client) -> None:
    padding = (b"\r\n" * 65536 for _ in range(100))

    reply = gateway.post("/v1/analyses", content=padding, headers=MULTIPART)

    assert reply.status_code in {400, 413}


def test_a_body_on_a_route_that_takes_none_is_capped(gateway: httpx.Client) -> None:
    refused(gateway.request("GET", "/livez", content=b"x" * (1024 * 1024 + 1)), 413, "too_large")


def test_other_methods_and_paths_get_problems_too(gateway: httpx.Client) -> None:
    for path, allowed in {"/v1/analyses": "GET, POST", "/v1/uploads/a/complete": "POST, PUT", "/livez": "GET"}.items():
        wrong_method = gateway.delete(path)
        refused(wrong_method, 405, "bad_request")
        assert wrong_method.headers["Allow"] == allowed
    refused(gateway.get("/nowhere"), 404, "not_found")


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(
    gateway_url: str, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "BATCH_PIECES", 1)
    head = (
        "POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
        f"Content-Type: {MULTIPART['Content-Type']}\r\n\r\n"
    )
    address = urlsplit(gateway_url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(head.encode() + part("file", b"x" * 500_000)[:-2])
        time.sleep(0.1)
        connection.sendall(b"x")
        assert _eventually(lambda: len(list(blobs.keys())) == 1)
    assert _eventually(lambda: not list(blobs.keys()))


def _eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_full_disk_is_told_and_leaves_nothing(gateway: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: BlobWriter, chunk: bytes) -> None:
        raise StorageFull("no room") from OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(BlobWriter, "write", full)

    reply = gateway.post("/v1/analyses", files={"file": ("a.mp4", b"x" * 1000)})

    refused(reply, 507, "storage_full")
    assert "Retry-After" in reply.headers


def test_a_database_that_leaves_in_mid_upload_leaves_one_orphan_to_the_sweeper(
    gateway: httpx.Client,
    gateway_settings: Settings,
    postgres: EmbeddedPostgres,
    blobs: LocalBlobs,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiving, "BATCH_PIECES", 1)
    name = gateway_settings.database_url.partition("?")[0].rpartition("/")[2]

    def cut_off() -> Iterator[bytes]:
        yield part("file", b"x" * 1000)[:-2]
        time.sleep(0.1)
        yield b"x"
        time.sleep(0.1)
        yield b"x\r\n"
        assert _eventually(lambda: len(list(blobs.keys())) == 1)
        _administer(postgres.url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        ended = f"SELECT bool_and(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = '{name}'"
        _administer(postgres.url, ended)
        yield END

    reply = gateway.post("/v1/analyses", content=cut_off(), headers=MULTIPART)
    ready = gateway.get("/readyz")
    _administer(postgres.url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    assert name not in refused(reply, 503, "unavailable")
    assert "Retry-After" in reply.headers
    assert "postgres" in refused(ready, 503, "unavailable")
    (orphan,) = blobs.keys()
    assert store.unknown_uploads([orphan]) == {orphan}
    blobs.delete(orphan)


def _administer(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_fault_of_ours_is_told_without_its_details(gateway: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(store: Store) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr(Store, "current_pipeline", broken)

    reply = gateway.get("/v1/detectors", headers={"X-Request-ID": "mine-1"})

    assert "secret" not in refused(reply, 500, "internal")
    assert reply.json()["request_id"] == "mine-1"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_a_request_id_that_could_forge_a_log_line_is_replaced(gateway: httpx.Client) -> None:
    reply = gateway.get("/livez", headers={"X-Request-ID": "a b"})

    assert reply.headers["X-Request-ID"] != "a b"
