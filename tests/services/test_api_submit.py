"""What may be asked for with a file, in a form and in JSON, and what is refused. Against real Postgres and Valkey."""

import json
import threading
import time
from uuid import UUID, uuid4

import httpx
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.api.access import Caller
from clipwarden.api.gateway import Gateway
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Analysis, AnalysisState, Lane, Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.analyses import claim

URL = "https://cdn.example.com/a%20clip.mp4?x=1"
HOOK = "https://hooks.example.com/clipwarden"


def kept(store: Store, reply: httpx.Response) -> Analysis:
    assert reply.status_code == 202, reply.text
    found = store.analysis(UUID(reply.json()["id"]))
    assert found is not None
    return found


def refused(reply: httpx.Response, status: int = 422, code: str = "invalid") -> str:
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    return str(reply.json()["detail"])


def test_options_are_kept_from_a_form_as_from_json(gateway: httpx.Client, store: Store) -> None:
    asked = {"tag": "täg", "metadata": {"a": [1]}, "policy": "strict", "lane": "bulk", "callback_url": HOOK}
    form = {
        **asked,
        "metadata": json.dumps(asked["metadata"]),
        "detectors": "forensic_mlp, forensic_mlp",
        "reuse": "false",
    }

    sent = kept(store, gateway.post("/v1/analyses", data=form, files={"file": ("a.mp4", b"x")}))
    named = kept(
        store, gateway.post("/v1/analyses", json={**asked, "url": URL, "detectors": ["forensic_mlp"], "reuse": False})
    )

    for found in (sent, named):
        assert (found.tag, found.metadata, found.policy, found.lane) == ("täg", {"a": [1]}, "strict", Lane.BULK)
        assert found.detectors == ("forensic_mlp",)
    assert (named.source_url, named.filename, named.upload_key) == (URL, "a clip.mp4", None)


def test_bulk_work_may_wait_longer(gateway: httpx.Client, gateway_settings: Settings) -> None:
    engine = create_engine(gateway_settings.database_url)
    for lane, allowed_s in (("realtime", gateway_settings.deadline_s), ("bulk", gateway_settings.bulk_deadline_s)):
        made = gateway.post("/v1/analyses", json={"url": URL, "lane": lane}).json()["id"]
        with engine.connect() as c:
            left = text("SELECT extract(epoch FROM deadline_at - created_at) FROM analyses WHERE id = :id")
            assert float(c.scalar(left, {"id": made})) == pytest.approx(allowed_s, abs=5)
    engine.dispose()


def test_what_is_left_out_or_empty_is_the_default(gateway: httpx.Client, store: Store) -> None:
    blank = dict.fromkeys(("tag", "metadata", "policy", "lane", "detectors", "callback_url", "reuse"), "")

    found = kept(store, gateway.post("/v1/analyses", data=blank, files={"file": ("a.mp4", b"x")}))

    assert (found.tag, found.metadata, found.policy, found.detectors) == (None, {}, None, None)
    assert found.lane is Lane.REALTIME


def test_an_address_opens_a_fetch_stage_and_sends_its_task(
    gateway: httpx.Client, store: Store, gateway_settings: Settings
) -> None:
    found = kept(store, gateway.post("/v1/analyses", json={"url": URL}))

    assert [row.stage for row in found.stages] == [Stage.FETCH]
    with Redis.from_url(gateway_settings.redis_url) as redis:
        (message,) = redis.lrange(Queue.INGEST, 0, -1)
    assert json.loads(message)["headers"]["task"] == "clipwarden.fetch"


WRONG = [
    ({}, "'url'"),
    ({"url": URL, "upload": str(UUID(int=7))}, "'upload'"),
    ({"url": 7}, "'url'"),
    ({"url": "http://10.0.0.1/a"}, "fetched"),
    ({"url": "file:///etc/passwd"}, "fetched"),
    ({"url": URL + "a" * 3000}, "'url'"),
    ({"upload": "x"}, "'upload'"),
    ({"upload": str(uuid4())}, "'upload'"),
    ({"url": URL, "callback_url": "http://127.0.0.1/"}, "callback"),
    ({"url": URL, "tga": "x"}, "'tga'"),
    ({"url": URL, "tag": "a\0b"}, "NUL"),
    ({"url": URL, "tag": "ü" * 129}, "256"),
    ({"url": URL, "metadata": {"a": "b" * 5000}}, "4096"),
    ({"url": URL, "metadata": [1]}, "'metadata'"),
    ({"url": URL, "detectors": []}, "'detectors'"),
    ({"url": URL, "detectors": ["lipfd"]}, "lipfd"),
    ({"url": URL, "detectors": ["forensic_mlp", "' OR 1=1"]}, "'detectors"),
    ({"url": URL, "policy": "lenient"}, "lenient"),
    ({"url": URL, "lane": "fast"}, "'lane'"),
    ({"url": URL, "reuse": "yes"}, "'reuse'"),
    ([1], "dictionary"),
    ("x", "dictionary"),
]


def test_wrong_json_is_refused_with_the_field_it_is_wrong_in(gateway: httpx.Client, store: Store) -> None:
    for body, told in WRONG:
        assert told in refused(gateway.post("/v1/analyses", json=body)), body
    assert store.due(everything=True) == []


BROKEN = [
    b"",
    b"{",
    b'{"url": "a", "url": "b"}',
    b'{"url": "a", "metadata": {"n": NaN}}',
    b'{"url": "\xff"}',
    b"[" * 20_000,
]


def test_broken_json_is_a_bad_request(gateway: httpx.Client) -> None:
    for body in BROKEN:
        reply = gateway.post("/v1/analyses", content=body, headers={"Content-Type": "application/json"})
        refused(reply, 400, "bad_request")


def test_json_over_its_limit_is_too_large(gateway: httpx.Client) -> None:
    refused(gateway.post("/v1/analyses", json={"url": "a" * 70_000}), 413, "too_large")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("lane", "fast", "'lane'"),
        ("reuse", "perhaps", "'reuse'"),
        ("policy", "lenient", "lenient"),
        ("detectors", "forensic_mlp,other", "other"),
        ("callback_url", "ftp://a.example", "callback"),
    ],
)
def test_a_wrong_option_of_a_form_is_refused_and_its_file_forgotten(
    gateway: httpx.Client, blobs: LocalBlobs, field: str, value: str, told: str
) -> None:
    assert told in refused(gateway.post("/v1/analyses", data={field: value}, files={"file": ("a", b"x")}))
    assert list(blobs.keys()) == []


def test_who_would_wait_is_answered_when_it_ends(gateway: httpx.Client, store: Store) -> None:
    def reject() -> None:
        while not (waiting := store.due(everything=True)):
            time.sleep(0.02)
        (found,) = waiting
        token = claim(store, found.analysis_id, Stage.INGEST)
        assert store.end_ingest(found.analysis_id, token, RejectCode.TRUNCATED, "The file is cut off.")

    worker = threading.Thread(target=reject)
    worker.start()
    prefer = {"Prefer": "respond-async, wait=30"}
    reply = gateway.post("/v1/analyses", files={"file": ("a", b"x")}, headers=prefer, timeout=25)
    worker.join()

    assert (reply.status_code, reply.json()["state"]) == (200, AnalysisState.REJECTED)
    assert reply.headers["Preference-Applied"] == "wait=30"
    assert "Retry-After" not in reply.headers


def test_who_would_wait_is_answered_in_time_if_it_does_not_end(gateway: httpx.Client) -> None:
    started = time.monotonic()
    reply = gateway.post("/v1/analyses", files={"file": ("a", b"x")}, headers={"Prefer": "wait=1"})

    assert (reply.status_code, reply.json()["state"]) == (202, AnalysisState.QUEUED)
    assert time.monotonic() - started >= 1
    assert int(reply.headers["Retry-After"]) >= 1


def test_what_was_taken_is_told_also_if_it_cannot_be_waited_for(
    gateway: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[UUID] = []

    def away(self: Gateway, caller: Caller, analysis_id: UUID) -> Analysis:
        reads.append(analysis_id)
        raise Unavailable("Postgres is away")

    monkeypatch.setattr(Gateway, "analysis", away)
    reply = gateway.post("/v1/analyses", files={"file": ("a", b"x")}, headers={"Prefer": "wait=20"})

    assert (reply.status_code, reply.json()["state"]) == (202, AnalysisState.QUEUED)
    assert reply.headers["Location"] == f"/v1/analyses/{reads[0]}"
    assert len(reads) == 1


@pytest.mark.parametrize("prefer", ["wait", "wait=soon", "wait=-1", "await=5", "wait=0", "x" * 1000])
def test_a_preference_that_cannot_be_read_is_ignored(gateway: httpx.Client, prefer: str) -> None:
    reply = gateway.post("/v1/analyses", files={"file": ("a", b"x")}, headers={"Prefer": prefer})

    assert reply.status_code == 202
    assert "Preference-Applied" not in reply.headers
