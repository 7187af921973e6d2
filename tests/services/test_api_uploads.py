"""Files sent ahead: kept once, named by analyses of their tenant, gone after their time. Against real services."""

import base64
import hashlib
import socket
import time
import tracemalloc
from collections.abc import Iterable
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import create_engine, text

from clipwarden.api import receiving
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import BlobGone
from clipwarden.shared.local.child import until
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, NewUpload, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from clipwarden.workers.sweep import Sweeper
from tests.analyses import finish
from tests.services.conftest import MANIFEST, MAX_UPLOAD, PIPELINE, Serve
from tests.services.test_api_access import MakeKey, make_key  # noqa: F401 - a fixture

CLIP = bytes(range(256)) * 100
SHA256 = hashlib.sha256(CLIP)
DIGEST = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
OTHER = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"


def sent(gateway: httpx.Client, content: bytes | Iterable[bytes] = CLIP, name: str = "a.mp4", **headers: str) -> UUID:
    reply = gateway.put(f"/v1/uploads/{name}", content=content, headers=headers)
    assert reply.status_code == 201, reply.text
    return UUID(reply.json()["id"])


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def test_a_file_sent_ahead_is_examined_when_it_is_named_more_than_once(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs
) -> None:
    reply = gateway.put("/v1/uploads/a%20clip.mp4", content=CLIP, headers={"Repr-Digest": DIGEST})
    assert reply.status_code == 201
    body = reply.json()
    assert (body["filename"], body["bytes"], body["sha256"]) == ("a clip.mp4", len(CLIP), SHA256.hexdigest())

    views = [gateway.post("/v1/analyses", json={"upload": body["id"], "tag": tag}).json() for tag in "ab"]

    assert [view["tag"] for view in views] == ["a", "b"]
    for view in views:
        assert view["input"]["sha256"] == SHA256.hexdigest()
        found = store.analysis(UUID(view["id"]))
        assert found is not None
        assert [row.stage for row in found.stages] == [Stage.INGEST]
        assert blobs.read(found.upload_key or "") == CLIP
    assert len(list(blobs.keys())) == 1


def test_a_length_is_not_needed(gateway: httpx.Client) -> None:
    reply = gateway.put("/v1/uploads/a", content=iter([b"x" * 1000] * 10))

    assert (reply.status_code, reply.json()["bytes"]) == (201, 10_000)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Content-Digest": DIGEST}, 201),
        ({"Repr-Digest": f"sha-512=:AA==:, {DIGEST}"}, 201),
        ({"Content-Digest": "md5=:AA==:"}, 201),
        ({"Content-Digest": OTHER}, 422),
        ({"Content-Digest": DIGEST, "Repr-Digest": OTHER}, 422),
        ({"Repr-Digest": "sha-256=:AAAA:"}, 400),
        ({"Repr-Digest": "sha-256=:A:"}, 400),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_an_announced_digest_is_checked(
    gateway: httpx.Client, blobs: LocalBlobs, headers: dict[str, str], answer: int
) -> None:
    assert gateway.put("/v1/uploads/a", content=CLIP, headers=headers).status_code == answer
    assert len(list(blobs.keys())) == (answer == 201)


def test_an_empty_and_an_oversized_file_are_refused_and_forgotten(gateway: httpx.Client, blobs: LocalBlobs) -> None:
    assert told(gateway.put("/v1/uploads/a", content=b"")) == (422, "invalid")
    assert told(gateway.put("/v1/uploads/a", content=b"x" * (MAX_UPLOAD + 1))) == (413, "too_large")
    assert told(gateway.put("/v1/uploads/a", content=iter([b"x" * 65536] * 17))) == (413, "too_large")
    assert list(blobs.keys()) == []
    sent(gateway, b"x" * MAX_UPLOAD)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("a/b/c.mp4", "c.mp4"),
        ("%E8%A7%86%E2%80%AE%F0%9F%8E%AC.mp4", "视🎬.mp4"),
        ("%00", "upload"),
    ],
)
def test_a_hostile_name_is_only_ever_a_label(gateway: httpx.Client, blobs: LocalBlobs, path: str, shown: str) -> None:
    reply = gateway.put(f"/v1/uploads/{path}", content=b"x")

    assert (reply.status_code, reply.json()["filename"]) == (201, shown)
    assert [key.split("/")[0] for key in blobs.keys()] == ["uploads"]


def test_another_tenants_file_cannot_be_named(serve: Serve, gateway_settings: Settings, make_key: MakeKey) -> None:  # noqa: F811
    ours, theirs = make_key("ours"), make_key("theirs")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        upload = client.put("/v1/uploads/a", content=CLIP, headers=ours.bearer).json()["id"]
        unknown = client.post("/v1/analyses", json={"upload": str(UUID(int=7))}, headers=theirs.bearer)
        foreign = client.post("/v1/analyses", json={"upload": upload}, headers=theirs.bearer)
        own = client.post("/v1/analyses", json={"upload": upload}, headers=ours.bearer)

    assert told(foreign) == told(unknown) == (422, "invalid")
    assert foreign.json()["detail"] == unknown.json()["detail"]
    assert own.status_code == 202


def age(settings: Settings, seconds: float) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE uploads SET created_at = created_at - make_interval(secs => :s)"), {"s": seconds})
    engine.dispose()


def test_an_expired_file_is_dropped_unless_an_analysis_names_it(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    named, lonely = sent(gateway), sent(gateway, b"other")
    gateway.post("/v1/analyses", json={"upload": str(named)}).raise_for_status()
    keys = {u.id: u.blob_key for u in store.kept_uploads([named, lonely], DEFAULT_TENANT, 3600).values()}
    assert store.unknown_uploads([*keys.values(), "uploads/x"]) == {"uploads/x"}
    assert store.drop_expired_uploads(3600) == []

    age(gateway_settings, gateway_settings.sent_ahead_s + 1)

    assert told(gateway.post("/v1/analyses", json={"upload": str(named)})) == (422, "invalid")
    assert Sweeper(gateway_settings).sweep()["uploads_deleted"] == 1
    assert list(blobs.keys()) == [keys[named]]
    assert store.unknown_uploads(list(keys.values())) == {keys[lonely]}


def test_an_analysis_never_names_a_file_that_was_dropped_meanwhile(store: Store) -> None:
    store.publish(PIPELINE, MANIFEST)
    kept = store.keep_upload(NewUpload(DEFAULT_TENANT, "a", "uploads/a", 1, "0" * 64), 3600)
    assert store.drop_expired_uploads(-1) == ["uploads/a"]

    with pytest.raises(BlobGone):
        store.submit(NewAnalysis("a", 1, "0" * 64, "uploads/a", PIPELINE, 60), kept.id)
    assert store.due(everything=True) == []


def test_memory_does_not_grow_with_the_file(serve: Serve, gateway_settings: Settings) -> None:
    roomy = gateway_settings.model_copy(update={"max_upload_bytes": 2**30})

    def peak(client: httpx.Client, mebibytes: int) -> int:
        tracemalloc.start()
        sent(client, (b"x" * 65536 for _ in range(16 * mebibytes)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    with serve(roomy) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        peak(client, 1)
        assert peak(client, 64) < peak(client, 8) + 2 * 2**20


@pytest.mark.parametrize("length", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_file_that_breaks_off_is_forgotten(
    gateway: httpx.Client, gateway_url: str, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, length: bytes
) -> None:
    monkeypatch.setattr(receiving, "BATCH_PIECES", 1)
    url = urlsplit(gateway_url)
    with socket.create_connection((url.hostname, url.port)) as link:
        link.sendall(b"PUT /v1/uploads/a HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n")
        for _ in range(2):
            link.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            time.sleep(0.1)
        assert until(lambda: bool(list(blobs.keys())), 10)

    assert until(lambda: not list(blobs.keys()), 10)
    assert gateway.get("/livez").status_code == 200


def test_a_file_stays_while_it_may_be_named_though_its_analyses_are_long_over(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    upload = sent(gateway)
    over = UUID(gateway.post("/v1/analyses", json={"upload": str(upload)}).json()["id"])
    finish(store, blobs, over)
    brief = gateway_settings.model_copy(update={"upload_retention_s": 1e-6})

    Sweeper(brief).sweep()
    assert len(list(blobs.keys())) == 3, "the file and two pictures"
    age(gateway_settings, gateway_settings.sent_ahead_s + 1)
    for _ in range(2):
        Sweeper(brief).sweep()

    assert not [key for key in blobs.keys() if key.startswith("uploads/")]
