"""Files that callers put into the bucket by themselves. Against a real server that speaks S3."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from clipwarden.api import uploads
from clipwarden.shared.blobs import BlobStore, open_blobs
from clipwarden.shared.database import tie_blob_store
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewUpload, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.services.conftest import Serve

CLIP = bytes(range(256)) * 300
ANNOUNCED = {"filename": "../a.mp4", "bytes": len(CLIP), "sha256": hashlib.sha256(CLIP).hexdigest()}


@pytest.fixture
def bucket(gateway_settings: Settings, store: Store, bucket_url: str) -> Settings:
    made = gateway_settings.model_copy(update={"blob_url": bucket_url})
    tie_blob_store(store, open_blobs(made), new_blob_store=True)
    return made


@pytest.fixture
def blobs(bucket: Settings) -> BlobStore:
    return open_blobs(bucket)


@pytest.fixture
def client(serve: Serve, bucket: Settings) -> Iterator[httpx.Client]:
    with serve(bucket) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as made:
        yield made


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def put(announced: httpx.Response, content: bytes) -> None:
    how = announced.json()["put"]
    httpx.put(how["url"], content=content, headers=how["headers"], trust_env=False).raise_for_status()


def test_a_file_put_into_the_bucket_is_examined_once_it_is_complete(
    client: httpx.Client, blobs: BlobStore, store: Store
) -> None:
    announced = client.post("/v1/uploads", json=ANNOUNCED)
    assert announced.status_code == 201, announced.text
    upload, complete = announced.json()["id"], announced.json()["links"]["complete"]
    assert told(client.post(complete)) == (409, "conflict")
    assert told(client.post("/v1/analyses", json={"upload": upload})) == (422, "invalid")
    put(announced, CLIP)

    done, again = client.post(complete), client.post(complete)

    assert (done.status_code, done.json()) == (200, again.json())
    assert (done.json()["filename"], done.json()["sha256"]) == ("a.mp4", ANNOUNCED["sha256"])
    taken = client.post("/v1/analyses", json={"upload": upload})
    assert taken.status_code == 202
    found = store.analysis(UUID(taken.json()["id"]))
    assert found is not None
    assert blobs.read(found.upload_key or "") == CLIP
    assert [key for key in blobs.keys() if key.startswith("uploads/")] == [found.upload_key]

    put(announced, b"other" + CLIP[5:])
    assert blobs.read(found.upload_key or "") == CLIP, "the address reaches what was checked"


@pytest.mark.parametrize("content", [CLIP[:-1], CLIP + b"x", b"other" + CLIP[5:]])
def test_a_file_that_is_not_the_announced_one_is_not_complete(
    client: httpx.Client, blobs: BlobStore, content: bytes
) -> None:
    announced = client.post("/v1/uploads", json=ANNOUNCED)
    complete = announced.json()["links"]["complete"]
    put(announced, content)

    assert told(client.post(complete)) == (422, "invalid")
    assert len([key for key in blobs.keys() if key.startswith("uploads/")]) == 1
    put(announced, CLIP)
    assert client.post(complete).status_code == 200


def test_files_that_are_being_checked_leave_threads_to_others(
    gateway_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = threading.Event()
    monkeypatch.setattr(uploads, "_complete", lambda *_: checked.wait(60))
    new = NewUpload(DEFAULT_TENANT, "a", "uploads/a", 1, "0" * 64, whole=False)
    path = f"/v1/uploads/{store.keep_upload(new, 3600).id}/complete"

    async def all_of_them() -> tuple[int, set[int]]:
        pool = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gateway_url, timeout=60, limits=pool, trust_env=False) as client:
            completing = [asyncio.create_task(client.post(path)) for _ in range(50)]
            try:
                await asyncio.sleep(1)
                other = await client.get("/v1/detectors", timeout=10)
            finally:
                checked.set()
            return other.status_code, {reply.status_code for reply in await asyncio.gather(*completing)}

    assert asyncio.run(all_of_them()) == (200, {200})


def test_what_cannot_be_announced_is_refused(client: httpx.Client) -> None:
    assert told(client.post("/v1/uploads", json=ANNOUNCED | {"bytes": 2**40})) == (413, "too_large")
    for wrong in ({"sha256": "x"}, {"bytes": 0}, {"filename": None}, {"key": "uploads/x"}):
        assert told(client.post("/v1/uploads", json=ANNOUNCED | wrong)) == (422, "invalid")
    assert told(client.post(f"/v1/uploads/{uuid4()}/complete")) == (404, "not_found")


def test_without_a_bucket_files_go_through_the_gateway(gateway: httpx.Client) -> None:
    reply = gateway.post("/v1/uploads", json=ANNOUNCED)

    assert told(reply) == (409, "conflict")
    assert "PUT /v1/uploads" in reply.json()["detail"]


def test_a_copy_of_a_file_in_a_directory_is_its_own(gateway_settings: Settings, tmp_path: Path) -> None:
    blobs = open_blobs(gateway_settings)
    with blobs.create("uploads/a") as writer:
        writer.write(CLIP)
        writer.commit()
    blobs.copy("uploads/a", "uploads/b")
    blobs.delete("uploads/a")

    assert blobs.read("uploads/b") == CLIP
    assert not list(tmp_path.glob("blobs/partial/*"))


def test_a_file_announced_again_under_its_key_is_the_same(client: httpx.Client, blobs: BlobStore) -> None:
    key = {"Idempotency-Key": "mine"}
    first, again = (client.post("/v1/uploads", json=ANNOUNCED, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert told(client.post("/v1/uploads", json=ANNOUNCED | {"bytes": 1}, headers=key)) == (422, "idempotency_mismatch")

    put(again, CLIP)
    assert client.post(first.json()["links"]["complete"]).json()["bytes"] == len(CLIP)
    assert told(client.post("/v1/uploads", json=ANNOUNCED, headers=key)) == (409, "conflict")
