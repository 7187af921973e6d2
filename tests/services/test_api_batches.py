"""Many files in one request: taken or refused one by one, opened at once, counted. Against real Postgres and Valkey."""

import json
import time
from uuid import UUID, uuid4

import httpx
import pytest
from redis import Redis

from clipwarden.api.options import MOST_ITEMS
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Lane, Stage
from clipwarden.shared.queue import Queue, redis_keys
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.analyses import claim, finish
from tests.services.conftest import Serve
from tests.services.test_api_access import MakeKey, make_key  # noqa: F401 - a fixture

KEY = {"Idempotency-Key": "batch-1"}


def sent(client: httpx.Client, content: bytes = b"x", headers: dict[str, str] | None = None) -> str:
    return str(client.put("/v1/uploads/a.mp4", content=content, headers=headers).raise_for_status().json()["id"])


def address(number: int) -> dict[str, str]:
    return {"url": f"https://cdn.example.com/{number}.mp4", "tag": f"n{number}"}


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def test_items_are_taken_or_refused_one_by_one(gateway: httpx.Client, store: Store) -> None:
    upload = sent(gateway)
    items = [
        address(0),
        {"upload": upload, "tag": "u", "metadata": {"post": 1}, "lane": "realtime", "policy": "strict"},
        {"url": "http://10.0.0.1/a"},
        {"upload": str(uuid4())},
        {"upload": upload, "detectors": ["lipfd"]},
        {"url": "https://a.example/", "tga": "x"},
        7,
    ]

    reply = gateway.post("/v1/batches", json={"items": items, "tag": "monday"})

    body = reply.json()
    assert (reply.status_code, reply.headers["Location"]) == (202, f"/v1/batches/{body['id']}")
    assert (body["tag"], body["total"], body["accepted"], body["refused"], body["ended"]) == ("monday", 7, 2, 5, 0)
    assert [item["index"] for item in body["items"]] == list(range(7))
    assert [item["error"] and item["error"]["code"] for item in body["items"]] == [None, None, *["invalid"] * 5]
    for item, word in zip(body["items"][2:], ("fetched", "'upload'", "lipfd", "'tga'", "dictionary"), strict=True):
        assert word in item["error"]["message"]
    first, second = (store.analysis(UUID(item["id"])) for item in body["items"][:2])
    assert first is not None
    assert second is not None
    assert (first.tag, first.lane, first.batch_id) == ("n0", Lane.BULK, UUID(body["id"]))
    assert (second.tag, second.metadata, second.lane, second.policy) == ("u", {"post": 1}, Lane.REALTIME, "strict")
    assert [row.stage for row in (*first.stages, *second.stages)] == [Stage.FETCH, Stage.INGEST]


def test_a_batch_is_counted_by_state_and_label_and_paged(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs
) -> None:
    items = [{"upload": sent(gateway, bytes([n + 1]))} for n in range(4)] + [{}]
    body = gateway.post("/v1/batches", json={"items": items}).json()
    ids = [UUID(item["id"]) for item in body["items"][:4]]
    finish(store, blobs, ids[0])
    token = claim(store, ids[1], Stage.INGEST)
    assert store.end_ingest(ids[1], token, RejectCode.TRUNCATED, "The file is cut off.")

    page = gateway.get(f"/v1/batches/{body['id']}?limit=2").json()
    rest = gateway.get(f"/v1/batches/{body['id']}?start={page['next']}").json()

    assert page["states"] == {"done": 1, "rejected": 1, "queued": 2}
    assert page["labels"] == {"fake": 1}
    assert (page["accepted"], page["refused"], page["ended"], page["next"]) == (4, 1, 2, 2)
    assert [item["label"] for item in page["items"]] == ["fake", None]
    assert [item["index"] for item in rest["items"]] == [2, 3, 4]
    assert rest["next"] is None
    listed = gateway.get(body["links"]["analyses"]).json()["analyses"]
    assert {UUID(each["id"]) for each in listed} == set(ids)


def test_a_thousand_items_are_answered_at_once_and_sent_afterwards(
    gateway: httpx.Client, gateway_settings: Settings, store: Store
) -> None:
    reply = gateway.post("/v1/batches", json={"items": [address(n) for n in range(MOST_ITEMS)]})

    assert (reply.status_code, reply.json()["accepted"]) == (202, MOST_ITEMS)
    ids = [UUID(item["id"]) for item in reply.json()["items"]]
    assert {due.analysis_id for due in store.due(everything=True)} == set(ids)
    with Redis.from_url(gateway_settings.redis_url) as redis:
        deadline = time.monotonic() + 10
        while not sum(redis.llen(key) for key in redis_keys(Queue.INGEST)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


WRONG = [
    ({"items": [address(n) for n in range(MOST_ITEMS + 1)]}, "'items'"),
    ({"items": []}, "'items'"),
    ({}, "'items'"),
    ({"items": {}}, "'items'"),
    ({"items": [address(0)], "lane": "bulk"}, "'lane'"),
    ({"items": [address(0)], "tag": "t" * 257}, "256"),
    ([address(0)], "dictionary"),
]


def test_what_is_no_batch_is_refused_as_a_whole(gateway: httpx.Client, store: Store) -> None:
    for body, word in WRONG:
        reply = gateway.post("/v1/batches", json=body)
        assert told(reply) == (422, "invalid")
        assert word in reply.json()["detail"]
    json_type = {"Content-Type": "application/json"}
    for broken in (b"{", b"[" * 500_000, b'{"items": [1], "items": [2]}'):
        assert told(gateway.post("/v1/batches", content=broken, headers=json_type)) == (400, "bad_request")
    assert told(gateway.post("/v1/batches", content=b"x" * 17_000_000, headers=json_type)) == (413, "too_large")
    assert store.due(everything=True) == []


def test_the_largest_items_fit_into_a_batch(gateway: httpx.Client) -> None:
    url = "https://cdn.example.com/" + "a" * 2000
    item = {"url": url, "callback_url": url, "tag": "t" * 256, "metadata": {"a": "m" * 4080}}
    assert len(json.dumps({"items": [item] * MOST_ITEMS})) < 16 * 2**20
    body = json.dumps({"items": [item] * 3 + [{}] * (MOST_ITEMS - 3)}) + " " * 9_000_000

    reply = gateway.post("/v1/batches", content=body, headers={"Content-Type": "application/json"})

    assert (reply.status_code, reply.json()["accepted"]) == (202, 3)


def test_a_batch_sent_again_under_its_key_opens_nothing(gateway: httpx.Client, store: Store) -> None:
    body = {"items": [address(0), {}]}
    first, again = (gateway.post("/v1/batches", json=body, headers=KEY) for _ in range(2))

    assert first.json() == again.json()
    assert len(store.due(everything=True)) == 1
    other = gateway.post("/v1/batches", json={"items": [address(1)]}, headers=KEY)
    assert told(other) == (422, "idempotency_mismatch")
    assert told(gateway.post("/v1/analyses", json=address(0), headers=KEY)) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("limits", [{"concurrent": 2}])
def test_a_batch_needs_room_for_all_it_opens(
    serve: Serve,
    gateway_settings: Settings,
    store: Store,
    make_key: MakeKey,  # noqa: F811
    limits: dict[str, int],
) -> None:
    key = make_key(**limits)
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False, headers=key.bearer) as client:
        refused = client.post("/v1/batches", json={"items": [address(n) for n in range(3)]})
        taken = client.post("/v1/batches", json={"items": [address(0), address(1), {}]})

    assert told(refused) == (429, "rate_limited")
    assert (taken.status_code, taken.json()["accepted"]) == (202, 2)
    assert len(store.due(everything=True)) == 2


def test_another_tenants_batch_and_files_are_not_there(
    serve: Serve,
    gateway_settings: Settings,
    make_key: MakeKey,  # noqa: F811
) -> None:
    ours, theirs = make_key("ours"), make_key("theirs")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        upload = sent(client, headers=ours.bearer)
        mine = client.post("/v1/batches", json={"items": [{"upload": upload}]}, headers=ours.bearer).json()
        other = client.post("/v1/batches", json={"items": [{"upload": upload}]}, headers=theirs.bearer).json()
        foreign = client.get(mine["links"]["self"], headers=theirs.bearer)

    assert (mine["accepted"], other["accepted"]) == (1, 0)
    assert told(foreign) == (404, "not_found")
    assert "'upload'" in other["items"][0]["error"]["message"]
