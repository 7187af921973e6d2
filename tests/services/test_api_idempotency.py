"""Requests that are sent again under their Idempotency-Key open nothing twice. Against real Postgres."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import create_engine, text

from clipwarden.api import idempotency
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.analyses import claim, finish
from tests.services.conftest import MANIFEST, PIPELINE, Serve
from tests.services.test_api_access import MakeKey, make_key  # noqa: F401 - a fixture

KEY = {"Idempotency-Key": '"order-7"'}


def post(client: httpx.Client, content: bytes = b"x", headers: dict[str, str] = KEY, **data: str) -> httpx.Response:
    return client.post("/v1/analyses", files={"file": ("a.mp4", content)}, data=data, headers=headers)


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def opened(store: Store) -> int:
    return len(store.due(everything=True))


def wait_for_claim(settings: Settings) -> None:
    engine = create_engine(settings.database_url)
    deadline = time.monotonic() + 20
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        while not c.scalar(text("SELECT count(*) FROM idempotency")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    engine.dispose()


def test_the_same_request_is_answered_with_the_same_analysis_as_it_reads_now(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs
) -> None:
    first = post(gateway, tag="t")
    again = post(gateway, headers={"Idempotency-Key": "order-7"}, tag="t")

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert (opened(store), len(list(blobs.keys()))) == (1, 1)

    analysis_id = UUID(first.json()["id"])
    token = claim(store, analysis_id, Stage.INGEST)
    assert store.end_ingest(analysis_id, token, RejectCode.TRUNCATED, "The file is cut off.")
    later = post(gateway, tag="t")
    assert (later.status_code, later.json()["id"], later.json()["state"]) == (200, str(analysis_id), "rejected")


def test_another_request_under_the_key_is_a_mismatch(gateway: httpx.Client, store: Store, blobs: LocalBlobs) -> None:
    post(gateway)

    mismatch = (422, "idempotency_mismatch")
    assert told(post(gateway, b"y")) == mismatch
    assert told(post(gateway, tag="t")) == mismatch
    assert told(gateway.post("/v1/analyses", json={"url": "https://a.example/"}, headers=KEY)) == mismatch
    assert (opened(store), len(list(blobs.keys()))) == (1, 1)
    assert post(gateway, b"y", {"Idempotency-Key": "other"}).status_code == 202


def test_the_seeds_route_and_json_heed_the_key_too(gateway: httpx.Client, store: Store) -> None:
    files = {"file": ("a.mp4", b"x")}
    seeds = [gateway.post("/analyze", files=files, headers=KEY).json()["analysisId"] for _ in range(2)]
    other = {"Idempotency-Key": "2"}
    named = [
        gateway.post("/v1/analyses", json={"url": "https://a.example/"}, headers=other).json()["id"] for _ in range(2)
    ]

    assert len({*seeds, *named}) == 2
    assert opened(store) == 2


def test_a_rerun_heeds_the_key_too(gateway: httpx.Client, store: Store, blobs: LocalBlobs) -> None:
    first = UUID(post(gateway, headers={}).json()["id"])
    finish(store, blobs, first)

    reruns = [gateway.post(f"/v1/analyses/{first}/rerun", headers=KEY) for _ in range(2)]

    assert [reply.status_code for reply in reruns] == [202, 202]
    assert len({reply.json()["id"] for reply in reruns}) == 1
    assert opened(store) == 1


def test_a_request_that_failed_gives_its_key_back(gateway: httpx.Client) -> None:
    assert told(post(gateway, lane="fast")) == (422, "invalid")
    assert told(post(gateway, b"")) == (422, "invalid")

    assert post(gateway).status_code == 202


def test_while_the_first_request_runs_a_second_is_told_so_and_then_answered(
    gateway: httpx.Client, gateway_settings: Settings
) -> None:
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        assert go_on.wait(20)
        yield b"x\r\n--b--\r\n"

    def first() -> httpx.Response:
        form = {**KEY, "Content-Type": "multipart/form-data; boundary=b"}
        return gateway.post("/v1/analyses", content=slowly(), headers=form)

    with ThreadPoolExecutor() as pool:
        running = pool.submit(first)
        wait_for_claim(gateway_settings)
        busy = post(gateway)
        go_on.set()
        done = running.result()

    assert told(busy) == (409, "idempotency_in_progress")
    assert busy.headers["Retry-After"] == "1"
    assert post(gateway).json()["id"] == done.json()["id"]


def test_many_at_once_open_one(gateway: httpx.Client, store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(gateway), range(16)))

    assert {reply.status_code for reply in replies} <= {202, 409}
    assert len({reply.json()["id"] for reply in replies if reply.status_code == 202}) == 1
    assert opened(store) == 1


def test_a_client_that_left_gives_its_key_back(gateway: httpx.Client, gateway_url: str) -> None:
    url = urlsplit(gateway_url)
    with socket.create_connection((url.hostname, url.port)) as link:
        head = (
            f"POST /v1/analyses HTTP/1.1\r\nHost: {url.netloc}\r\nIdempotency-Key: order-7\r\nContent-Length: 999\r\n"
        )
        link.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        time.sleep(0.2)

    deadline = time.monotonic() + 10
    while (reply := post(gateway)).status_code == 409:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert reply.status_code == 202


def test_keys_are_a_tenants_own(serve: Serve, gateway_settings: Settings, make_key: MakeKey) -> None:  # noqa: F811
    ours, theirs = make_key("ours"), make_key("theirs")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        mine = post(client, headers={**KEY, **ours.bearer})
        other = post(client, b"y", headers={**KEY, **theirs.bearer})

    assert (mine.status_code, other.status_code) == (202, 202)
    assert mine.json()["id"] != other.json()["id"]


@pytest.mark.parametrize("key", ["", '""', '"', "a b", "ä", "k" * 256, "a\tb"])
def test_a_key_that_is_none_is_a_bad_request(gateway: httpx.Client, key: str) -> None:
    assert told(post(gateway, headers={"Idempotency-Key": key.encode("latin-1")})) == (400, "bad_request")  # type: ignore[dict-item]


def test_two_keys_are_a_bad_request(gateway: httpx.Client) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

    assert told(gateway.post("/v1/analyses", json={"url": "https://a.example/"}, headers=twice)) == (400, "bad_request")


def test_a_gateway_that_died_blocks_its_key_for_a_while_only(store: Store) -> None:
    dead = store.claim_key(DEFAULT_TENANT, "k", 3600, 60)
    assert dead is not None
    assert store.claim_key(DEFAULT_TENANT, "k", 3600, 60) is None

    heir = store.claim_key(DEFAULT_TENANT, "k", 3600, -1)

    assert heir is not None
    assert heir.resource_id is None
    store.publish(PIPELINE, MANIFEST)
    new = NewAnalysis("a", 1, "0" * 64, "uploads/a", PIPELINE, 60)
    with pytest.raises(ProblemError, match="key"):
        store.submit(new, claim=dead, fingerprint="f")
    assert opened(store) == 0
    store.drop_claim(dead)
    analysis_id = store.submit(new, claim=heir, fingerprint="f").id
    known = store.claim_key(DEFAULT_TENANT, "k", 3600, 60)
    assert known is not None
    assert (known.resource_id, known.fingerprint) == (analysis_id, "f")


def test_a_claim_is_renewed_while_its_request_runs(
    serve: Serve, gateway_settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "RENEW_S", 0.05)
    renewed = threading.Event()
    monkeypatch.setattr(Store, "renew_claim", lambda *_: renewed.set())

    def slowly() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        assert renewed.wait(20)
        yield b"x\r\n--b--\r\n"

    with serve(gateway_settings) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        form = {**KEY, "Content-Type": "multipart/form-data; boundary=b"}
        assert client.post("/v1/analyses", content=slowly(), headers=form).status_code == 202


def test_a_key_is_forgotten_after_its_time(gateway: httpx.Client, gateway_settings: Settings, store: Store) -> None:
    first = post(gateway)
    engine = create_engine(gateway_settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE idempotency SET created_at = created_at - interval '25 hours'"))

    assert post(gateway, b"y").json()["id"] != first.json()["id"]
    store.drop_expired_keys(-1)
    with engine.begin() as c:
        assert c.scalar(text("SELECT count(*) FROM idempotency")) == 0
    engine.dispose()


def test_a_file_sent_ahead_and_feedback_are_kept_once(gateway: httpx.Client, store: Store, blobs: LocalBlobs) -> None:
    def ahead(content: bytes) -> httpx.Response:
        return gateway.put("/v1/uploads/a.mp4", content=content, headers=KEY)

    first, again = ahead(b"x"), ahead(b"x")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert told(ahead(b"y")) == (422, "idempotency_mismatch")
    assert len(list(blobs.keys())) == 1

    analysis = gateway.post("/v1/analyses", json={"upload": first.json()["id"]}).json()["id"]
    finish(store, blobs, UUID(analysis))

    def say(label: str) -> httpx.Response:
        said = {"label": label, "category": "other"}
        return gateway.post(f"/v1/analyses/{analysis}/feedback", json=said, headers={"Idempotency-Key": "said"})

    assert [say("real").json(), told(say("fake"))] == [say("real").json(), (422, "idempotency_mismatch")]
    assert len(gateway.get(f"/v1/analyses/{analysis}/feedback").json()["feedback"]) == 1

    assert gateway.delete(f"/v1/analyses/{analysis}").status_code == 200
    assert told(ahead(b"x")) == (409, "conflict")
