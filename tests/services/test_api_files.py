"""The media and the evidence of an analysis: by links that open them, whole or in part, from a folder and a bucket."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from clipwarden.api.evidence import media_type
from clipwarden.api.links import Signer
from clipwarden.shared.blobs import BlobStore, open_blobs
from clipwarden.shared.contracts import MediaKind
from clipwarden.shared.database import tie_blob_store
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.analyses import FACE, PROBE, SERIES, finish
from tests.services.conftest import Serve


@pytest.fixture
def finished(store: Store, blobs: BlobStore, submitted: UUID) -> UUID:
    finish(store, blobs, submitted)
    return submitted


def links(gateway: httpx.Client, analysis_id: UUID) -> dict[str, str]:
    """The links of a finished analysis's files."""
    body = gateway.get(f"/v1/analyses/{analysis_id}").raise_for_status().json()
    shown = body["branches"]["visual"]["detectors"][0]["evidence"]
    return {"media": body["links"]["media"], **{e["kind"]: e["href"] for e in shown}}


def test_evidence_is_told_with_links_that_open_it(gateway: httpx.Client, finished: UUID) -> None:
    told = links(gateway, finished)

    face, series = gateway.get(told["face"]), gateway.get(told["series"])
    assert (face.content, face.headers["Content-Type"]) == (FACE, "image/jpeg")
    assert (series.content, series.headers["Content-Type"]) == (SERIES, "application/json")


def test_the_media_is_given_back_as_what_it_is_and_can_do_nothing(
    gateway: httpx.Client, finished: UUID, clip_file: Path
) -> None:
    reply = gateway.get(links(gateway, finished)["media"])

    assert reply.content == clip_file.read_bytes()
    assert reply.headers["Content-Type"] == "video/mp4"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Content-Disposition"] == "inline; filename*=utf-8''clip.mp4"
    assert int(reply.headers["Content-Length"]) == len(reply.content)


def test_what_was_not_read_yet_is_for_saving_only(gateway: httpx.Client, submitted: UUID) -> None:
    reply = gateway.get(f"/v1/analyses/{submitted}/media")

    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ['a"b.mp4', "ü b;\r\nX-Evil: 1.mp4", "a/../../b.mp4", "日本.mp4"])
def test_a_file_name_cannot_leave_its_header(gateway: httpx.Client, clip_file: Path, name: str) -> None:
    sent = gateway.post("/v1/analyses", files={"file": (name, clip_file.read_bytes())}).raise_for_status().json()

    reply = gateway.get(sent["links"]["media"])

    assert "X-Evil" not in reply.headers
    said = reply.headers["Content-Disposition"].removeprefix("attachment; filename*=utf-8''")
    assert not set(said) & set(' "/;\\\r\n')


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-99", 206, (0, 100)),
        ("bytes=255900-", 206, (255_900, 256_000)),
        ("bytes=-100", 206, (255_900, 256_000)),
        ("bytes=-9999999", 206, (0, 256_000)),
        ("bytes=255999-9999999", 206, (255_999, 256_000)),
        ("bytes=0-9,10-19", 206, (0, 20)),
        ("bytes=0-9, 5-19 ,-0", 206, (0, 20)),
        ("bytes=0-9,20-29", 416, None),
        ("bytes=256000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-0", 200, (0, 256_000)),
        ("bytes=", 200, (0, 256_000)),
        ("bytes=a-b", 200, (0, 256_000)),
        ("lines=0-9", 200, (0, 256_000)),
        ("bytes=" + "9" * 40 + "-", 200, (0, 256_000)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_range_of_the_media_is_that_range(
    gateway: httpx.Client,
    submitted: UUID,
    clip_file: Path,
    method: str,
    asked: str,
    status: int,
    span: tuple[int, int] | None,
) -> None:
    reply = gateway.request(method, f"/v1/analyses/{submitted}/media", headers={"Range": asked})

    assert reply.status_code == status
    if span is None:
        assert reply.headers["Content-Range"] == "bytes */256000"
        return
    start, end = span
    assert int(reply.headers["Content-Length"]) == end - start
    assert reply.content == (clip_file.read_bytes()[start:end] if method == "GET" else b"")
    assert reply.headers.get("Content-Range") == (f"bytes {start}-{end - 1}/256000" if status == 206 else None)


def test_a_range_of_another_version_is_the_whole_file(gateway: httpx.Client, submitted: UUID) -> None:
    url = f"/v1/analyses/{submitted}/media"
    tag = gateway.head(url).headers["ETag"]

    same = gateway.get(url, headers={"Range": "bytes=0-9", "If-Range": tag})
    other = gateway.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})

    assert (same.status_code, other.status_code) == (206, 200)


def changed(link: str, **query: str) -> str:
    path, _, before = link.partition("?")
    return f"{path}?{urlencode({name: values[0] for name, values in parse_qs(before).items()} | query)}"


def test_a_link_opens_only_what_it_was_made_for(gateway: httpx.Client, store: Store, finished: UUID) -> None:
    told = links(gateway, finished)
    of_media, of_face = urlsplit(told["media"]), urlsplit(told["face"])
    others = Signer(store.link_secret(), 3600).signed(uuid4(), of_media.path)
    foreign = Signer(b"another secret", 3600).signed(DEFAULT_TENANT, of_media.path)

    for made_up in (
        changed(told["media"], expires="99999999999"),
        changed(told["media"], signature="AAAA"),
        changed(told["media"], signature="ü"),
        changed(told["media"], expires="", signature=""),
        f"{of_face.path}?{of_media.query}",
        f"/v1/analyses/{uuid4()}/media?{of_media.query}",
        others,
        foreign,
    ):
        reply = gateway.get(made_up)
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), made_up


def test_a_link_expires(gateway: httpx.Client, store: Store, finished: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/analyses/{finished}/media"
    with monkeypatch.context() as patched:
        now = time.time()
        patched.setattr("clipwarden.api.links.time.time", lambda: now - 2 * 3600)
        old = Signer(store.link_secret(), 3600).signed(DEFAULT_TENANT, path)

    reply = gateway.get(old)

    assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
    assert "expired" in reply.json()["detail"]


def test_links_read_again_soon_are_the_same_and_outlast_a_restart(
    serve: Serve, gateway_settings: Settings, store: Store, blobs: BlobStore, gateway: httpx.Client, finished: UUID
) -> None:
    first = links(gateway, finished)
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as another:
        assert another.get(first["media"]).status_code == 200
        again = links(another, finished)
    assert urlsplit(again["face"]).path == urlsplit(first["face"]).path
    lived = [int(parse_qs(urlsplit(link).query)["expires"][0]) - time.time() for link in (*first.values(),)]
    assert all(3600 <= seconds <= 3600 * 1.25 + 1 for seconds in lived)


@pytest.mark.parametrize(
    "path",
    [
        "evidence/visual/forensic_mlp/face-1.jpg",
        "evidence/visual/lipfd/face-0.jpg",
        "evidence/audio/forensic_mlp/face-0.jpg",
        "evidence/nothing/forensic_mlp/face-0.jpg",
        "evidence/visual/forensic_mlp/..%2F..%2Fstore-id",
        "evidence/visual/%00/face-0.jpg",
    ],
)
def test_only_what_a_result_names_is_served(gateway: httpx.Client, finished: UUID, path: str) -> None:
    assert gateway.get(f"/v1/analyses/{finished}/{path}").status_code == 404


def test_a_file_that_is_gone_is_not_found_and_no_longer_linked(
    gateway: httpx.Client, store: Store, blobs: BlobStore, finished: UUID
) -> None:
    analysis = store.analysis(finished)
    assert analysis
    assert analysis.upload_key
    blobs.delete(analysis.upload_key)
    gone = gateway.get(f"/v1/analyses/{finished}/media")
    store.forget_upload(finished)
    forgotten = gateway.get(f"/v1/analyses/{finished}/media")

    assert [(r.status_code, r.json()["code"]) for r in (gone, forgotten)] == [(404, "not_found")] * 2
    assert "media" not in gateway.get(f"/v1/analyses/{finished}").json()["links"]


@pytest.mark.parametrize(
    ("container", "kind", "expected"),
    [
        ("mov", MediaKind.VIDEO, "video/mp4"),
        ("mov", MediaKind.AUDIO, "audio/mp4"),
        ("mp3", MediaKind.AUDIO, "audio/mpeg"),
        ("png_pipe", MediaKind.IMAGE, "image/png"),
        ("svg_pipe", MediaKind.IMAGE, "application/octet-stream"),
    ],
)
def test_the_type_is_that_of_the_content(container: str, kind: MediaKind, expected: str) -> None:
    assert media_type(PROBE.model_copy(update={"container": container, "kind": kind})) == expected


@pytest.fixture
def from_bucket(
    serve: Serve, gateway_settings: Settings, store: Store, bucket_url: str
) -> Iterator[tuple[httpx.Client, BlobStore]]:
    settings = gateway_settings.model_copy(update={"blob_url": bucket_url})
    bucket = open_blobs(settings)
    tie_blob_store(store, bucket, new_blob_store=True)
    with serve(settings) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client, bucket


def test_files_in_a_bucket_are_served_alike(
    from_bucket: tuple[httpx.Client, BlobStore], store: Store, clip_file: Path
) -> None:
    client, bucket = from_bucket
    content = clip_file.read_bytes()
    made = client.post("/v1/analyses", files={"file": ("a.mp4", content)}).raise_for_status().json()["id"]
    finish(store, bucket, UUID(made))

    told = links(client, UUID(made))

    assert client.get(told["face"]).content == FACE
    assert client.get(told["media"]).content == content
    assert client.get(told["media"], headers={"Range": "bytes=-7"}).content == content[-7:]
    assert client.get(told["media"], headers={"Range": "bytes=1000-1999"}).content == content[1000:2000]
    bucket.delete(store.analysis(UUID(made)).upload_key)  # type: ignore[union-attr, arg-type]
    assert client.get(told["media"]).status_code == 404
