"""Server-sent events: every change told once, to many, without asking the database in between."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, create_engine, event, text

from clipwarden.api import access
from clipwarden.api import events as streams
from clipwarden.api.changes import Changes
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Stage
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.analyses import assess, claim, finish, found, ingest, verdict
from tests.services.conftest import Serve
from tests.services.test_api_access import MakeKey, make_key  # noqa: F401 - a fixture

PATIENCE_S = 20
MANY = 60


class Stream:
    """An open event stream, read line by line."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply, self.lines = reply, reply.iter_lines()
        self.retry = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each event's fields, its data parsed."""
        fields: dict[str, Any] = {}
        for line in self.lines:
            name, _, value = line.partition(": ")
            if name == "retry":
                self.retry = value
            elif name:
                fields[name] = json.loads(value) if name == "data" else value
            elif fields:
                yield fields
                fields = {}

    def until(self, state: str, stage: str | None = None) -> dict[str, Any]:
        """The first event that shows an analysis so."""
        return next(e for e in self if (e["data"]["state"], e["data"]["stage"]) == (state, stage))


@contextmanager
def watching(gateway: httpx.Client, analysis_id: UUID, seen: str | None = None) -> Iterator[Stream]:
    headers = {"Last-Event-ID": seen} if seen else {}
    with gateway.stream("GET", f"/v1/analyses/{analysis_id}/events", headers=headers, timeout=PATIENCE_S) as reply:
        reply.raise_for_status()
        yield Stream(reply)


def test_every_change_is_told_and_the_stream_ends_with_the_analysis(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    with watching(gateway, submitted) as stream:
        assert stream.reply.headers["Content-Type"].startswith("text/event-stream")
        assert stream.until("queued")["event"] == "analysis"
        ingest(store, submitted)
        assert stream.until("running", "assess")["data"]["percent"] == 75
        assess(store, blobs, submitted)
        assessed = stream.until("running", "fuse")
        assert assessed["data"]["branches"]["visual"]["detectors"][0]["score"] == 0.75
        assert store.fuse(submitted, lambda *_: verdict())
        (last,) = list(stream)
    told = gateway.get(f"/v1/analyses/{submitted}").json()
    assert last["data"] == told
    assert last["data"]["verdict"]["label"] == "fake"
    assert int(stream.retry) > 0


def test_a_detector_is_told_when_it_has_finished_though_its_branch_has_not(
    gateway: httpx.Client, store: Store, submitted: UUID
) -> None:
    ingest(store, submitted)
    token = claim(store, submitted, Stage.VISUAL)
    with watching(gateway, submitted) as stream:
        assert stream.until("running", "assess")["data"]["branches"]["visual"]["detectors"] == []
        store.tell_branch(submitted, token, found())
        told = next(iter(stream))["data"]
    visual = told["branches"]["visual"]
    assert (visual["status"], visual["elapsed_ms"]) == ("leased", None)
    assert [(d["name"], d["score"], d["elapsed_ms"]) for d in visual["detectors"]] == [("forensic_mlp", 0.75, 1500)]


def test_a_client_that_comes_back_is_told_only_what_it_has_not_seen(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    with watching(gateway, submitted) as stream:
        first = stream.until("queued")
    with watching(gateway, submitted, seen=first["id"]) as stream:
        ingest(store, submitted)
        second = next(iter(stream))
    assert second["data"]["state"] == "running"
    finish_rest(store, blobs, submitted)
    with watching(gateway, submitted, seen=second["id"]) as stream:
        (last,) = list(stream)
    assert last["data"]["state"] == "done"
    again = gateway.get(f"/v1/analyses/{submitted}/events", headers={"Last-Event-ID": last["id"]})
    assert (again.status_code, again.content) == (204, b"")


def finish_rest(store: Store, blobs: LocalBlobs, analysis_id: UUID) -> None:
    assess(store, blobs, analysis_id)
    assert store.fuse(analysis_id, lambda *_: verdict())


def test_an_ended_analysis_is_told_once(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    finish(store, blobs, submitted)
    with watching(gateway, submitted) as stream:
        assert [e["data"]["state"] for e in stream] == ["done"]


def test_two_gateways_name_an_event_alike(
    serve: Serve, gateway_settings: Settings, gateway: httpx.Client, submitted: UUID
) -> None:
    with (
        serve(gateway_settings) as url,
        httpx.Client(base_url=url, trust_env=False) as another,
        watching(gateway, submitted) as here,
        watching(another, submitted) as there,
    ):
        assert next(iter(here))["id"] == next(iter(there))["id"]


def test_a_quiet_stream_is_kept_open_by_comments(
    gateway: httpx.Client, store: Store, submitted: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    with watching(gateway, submitted) as stream:
        stream.until("queued")
        comments = (line for line in stream.lines if line.startswith(":"))
        assert [next(comments) for _ in range(3)] == [": still here"] * 3
        ingest(store, submitted)
        stream.until("running", "assess")


def test_an_unknown_analysis_has_no_events(gateway: httpx.Client) -> None:
    assert gateway.get(f"/v1/analyses/{uuid4()}/events").status_code == 404


def test_a_key_holds_so_many_streams_and_a_closed_one_makes_room(
    serve: Serve, gateway_settings: Settings, store: Store, blobs: LocalBlobs, submitted: UUID, gateway: httpx.Client
) -> None:
    tight = gateway_settings.model_copy(update={"max_streams": 2})
    with serve(tight) as url, httpx.Client(base_url=url, trust_env=False) as client:
        with watching(client, submitted) as one, watching(client, submitted) as two:
            one.until("queued"), two.until("queued")
            refused = client.get(f"/v1/analyses/{submitted}/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert int(refused.headers["Retry-After"]) > 0
        deadline = time.monotonic() + PATIENCE_S
        finish(store, blobs, submitted)
        while (reply := client.get(f"/v1/analyses/{submitted}/events")).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert reply.status_code == 200


def test_a_gateway_that_stops_does_not_wait_for_its_streams(
    serve: Serve, gateway_settings: Settings, submitted: UUID
) -> None:
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        with serve(gateway_settings) as url:
            reply = client.send(client.build_request("GET", f"{url}/v1/analyses/{submitted}/events"), stream=True)
            stream = Stream(reply)
            stream.until("queued")
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)


def test_news_lost_with_the_connection_are_told_after_it(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, submitted: UUID
) -> None:
    engine = create_engine(gateway_settings.database_url, isolation_level="AUTOCOMMIT")
    with watching(gateway, submitted) as stream, engine.connect() as c:
        stream.until("queued")
        c.execute(text("ALTER TABLE stages DISABLE TRIGGER tell"))
        c.execute(text("ALTER TABLE analyses DISABLE TRIGGER tell"))
        ingest(store, submitted)
        listeners = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        assert c.scalar(text(f"SELECT count(pg_terminate_backend(pid)) {listeners}")) == 1
        stream.until("running", "assess")
    engine.dispose()


def test_changes_are_heard_where_more_than_a_thousand_files_are_open(
    gateway_settings: Settings, store: Store, submitted: UUID
) -> None:
    async def heard() -> None:
        changes = Changes(gateway_settings.database_url)
        changes.start()
        with changes.of(submitted) as news:
            for change in (lambda: None, lambda: ingest(store, submitted)):  # the connection itself is news
                await asyncio.to_thread(change)
                await asyncio.wait_for(news.wait(), PATIENCE_S)
                news.clear()
        await changes.close()

    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        asyncio.run(heard())
    finally:
        for each in held:
            os.close(each)


def test_a_stream_ends_when_its_key_is_revoked(
    serve: Serve,
    gateway_settings: Settings,
    store: Store,
    make_key: MakeKey,  # noqa: F811
    clip_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(access, "KEY_CACHE_S", 0.05)
    made = make_key("ours")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, headers=made.bearer, trust_env=False) as client:
        files = {"file": ("a.mp4", clip_file.read_bytes())}
        analysis_id = UUID(client.post("/v1/analyses", files=files).raise_for_status().json()["id"])
        with watching(client, analysis_id) as stream:
            stream.until("queued")
            assert store.revoke_key(made.key.id)
            assert len(list(islice(stream.lines, 200))) < 200, "comments went on"


def reads(asked: list[str]) -> int:
    """How many of the statements read a whole analysis."""
    return sum("SELECT a.*" in statement for statement in asked)


def test_many_open_streams_ask_the_database_nothing_and_a_change_is_read_once(
    gateway_url: str, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    asked: list[str] = []
    listener = lambda _c, _cursor, statement, *_: asked.append(statement)  # noqa: E731
    idle: list[str] = []
    watched: list[str] = []

    async def one(client: httpx.AsyncClient, ready: asyncio.Semaphore) -> None:
        async with client.stream("GET", f"/v1/analyses/{submitted}/events") as reply:
            async for line in _data(reply):
                if '"queued"' in line:
                    ready.release()
                last = line
            watched.append(last)

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=MANY)
        async with httpx.AsyncClient(base_url=gateway_url, timeout=120, limits=limits, trust_env=False) as client:
            ready = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(one(client, ready)) for _ in range(MANY)]
            for _ in range(MANY):
                await ready.acquire()
            event.listen(Engine, "before_cursor_execute", listener)
            await asyncio.sleep(access.KEY_CACHE_S + 0.2)
            idle.extend(asked)
            assert len({t.name for t in threading.enumerate() if t.name == "changes"}) == 1
            await asyncio.to_thread(finish, store, blobs, submitted)
            await asyncio.gather(*tasks)
            event.remove(Engine, "before_cursor_execute", listener)

    asyncio.run(all_of_them())

    assert reads(idle) == 0
    assert 1 <= reads(asked) <= MANY // 2, "of some ten changes"
    assert 1 <= sum("FROM keys" in statement for statement in asked) <= MANY // 2
    assert len(watched) == MANY
    assert all('"state":"done"' in line for line in watched)


async def _data(reply: httpx.Response) -> AsyncIterator[str]:
    async for line in reply.aiter_lines():
        if line.startswith("data: "):
            yield line
