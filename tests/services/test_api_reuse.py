"""The content cache and the lanes as a client of the gateway sees them."""

from pathlib import Path
from select import select
from typing import Any
from uuid import UUID

import httpx
import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from redis import Redis

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.queue import Queue, redis_keys
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.shared.tables import CHANGES
from tests.analyses import FACE, assess, finish, ingest, verdict


def send(gateway: httpx.Client, path: Path, **fields: str) -> dict[str, Any]:
    with path.open("rb") as file:
        reply = gateway.post("/v1/analyses", files={"file": file}, data=fields).raise_for_status()
    body: dict[str, Any] = reply.json()
    return body


def test_a_file_sent_again_comes_back_done_and_is_kept_once(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    first = send(gateway, clip_file)
    finish(store, blobs, UUID(first["id"]))
    kept = set(blobs.keys())
    again = send(gateway, clip_file, tag="again")
    assert (again["state"], again["from_cache"], again["percent"], again["tag"]) == ("done", True, 100, "again")
    assert again["id"] != first["id"]
    assert again["verdict"] == gateway.get(f"/v1/analyses/{first['id']}").json()["verdict"]
    assert set(blobs.keys()) == kept
    shown = again["branches"]["visual"]["detectors"][0]["evidence"]
    assert FACE in {gateway.get(each["href"]).content for each in shown}
    assert gateway.get(again["links"]["media"]).content == clip_file.read_bytes()
    assert gateway.delete(f"/v1/analyses/{first['id']}").is_success
    assert FACE in {gateway.get(each["href"]).content for each in shown}
    assert gateway.get(again["links"]["media"]).content == clip_file.read_bytes()
    assert gateway.delete(f"/v1/analyses/{again['id']}").is_success
    assert set(blobs.keys()) == set()


def test_who_opts_out_gets_a_run_of_their_own(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    finish(store, blobs, UUID(send(gateway, clip_file)["id"]))
    again = send(gateway, clip_file, reuse="false")
    assert (again["state"], again["from_cache"]) == ("queued", False)


def test_a_duplicate_shows_and_is_told_the_progress_of_the_run_it_shares(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, clip_file: Path, postgres_url: str
) -> None:
    first, second = (UUID(send(gateway, clip_file)["id"]) for _ in range(2))
    link = psycopg2.connect(postgres_url.replace("+psycopg2", ""))
    link.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    link.cursor().execute(f"LISTEN {CHANGES}")
    ingest(store, first)
    assert select([link], [], [], 5)[0]
    link.poll()
    assert {UUID(notice.payload) for notice in link.notifies} == {first, second}
    link.close()
    shown = gateway.get(f"/v1/analyses/{second}").json()
    assert (shown["state"], shown["stage"], shown["follows"]) == ("running", "assess", str(first))
    for state, count in (("running", 2), ("queued", 0), (None, 2)):
        page = gateway.get("/v1/analyses", params={"state": state} if state else {}).json()["analyses"]
        assert [(each["state"], each["follows"]) for each in page] == [("running", str(first)), ("running", None)][
            :count
        ]
    assess(store, blobs, first)
    assert store.fuse(first, lambda *_: verdict())
    shown = gateway.get(f"/v1/analyses/{second}").json()
    assert (shown["state"], shown["follows"], shown["from_cache"]) == ("done", None, True)
    assert shown["branches"]["visual"]["reused"]
    assert not gateway.get(f"/v1/analyses/{first}").json()["branches"]["visual"]["reused"]


@pytest.mark.parametrize(("fields", "place"), [({}, 0), ({"lane": "bulk"}, 1)], ids=["default", "bulk"])
def test_the_lane_asked_for_is_the_queue_s_own(
    gateway: httpx.Client, gateway_settings: Settings, clip_file: Path, fields: dict[str, str], place: int
) -> None:
    send(gateway, clip_file, **fields)
    with Redis.from_url(gateway_settings.redis_url) as redis:
        lengths = [redis.llen(key) for key in redis_keys(Queue.INGEST)]
    assert lengths == [int(place == 0), int(place == 1)]
