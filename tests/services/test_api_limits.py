"""What is refused for its rate, its number or its pace, and what goes through when Redis is away."""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.api import connection, keys, limits
from clipwarden.api.access import Scope, digest_of
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.local.child import until
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewKey, Store
from tests.analyses import finish
from tests.services.conftest import Serve

FILES = {"file": ("a.mp4", b"x" * 1000)}
AWAY = "redis://127.0.0.1:9/0"


@contextmanager
def client_of(
    serve: Serve, settings: Settings, store: Store, tenant: str = "acme", **bounds: int
) -> Iterator[httpx.Client]:
    """A gateway, asked with a key that has these limits."""
    secret = keys.new_secret()
    store.create_key(NewKey(tenant, "test", digest_of(secret), [s.value for s in Scope], **bounds))
    with (
        serve(settings) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": secret}, trust_env=False, timeout=30) as client,
    ):
        yield client


def end_all(settings: Settings) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE analyses SET state = 'cancelled', finished_at = clock_timestamp()"))
    engine.dispose()


def insert_unfinished(settings: Settings) -> None:
    """One more than there are, of the same key."""
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(
            text("""
                INSERT INTO analyses (id, tenant_id, key_id, pipeline_id, state, filename, size_bytes, sha256,
                                      deadline_at)
                SELECT gen_random_uuid(), tenant_id, key_id, pipeline_id, 'queued', 'a', 1, 'ab', deadline_at
                FROM analyses LIMIT 1
            """)
        )
    engine.dispose()


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def test_a_rate_is_exactly_a_bucket_that_is_refilled_evenly(redis_url: str) -> None:
    interval, burst, rng = 4_000, 5, random.Random(7)
    tokens, before, granted = Fraction(burst), None, 0
    with Redis.from_url(redis_url) as client:
        for _ in range(400):
            allowed, full_in, wait, now = client.eval(limits.SPEND, 1, "rate", interval, burst)
            tokens = min(Fraction(burst), tokens + Fraction(now - (before or now), interval))
            before = now
            assert allowed == (tokens >= 1)
            if allowed:
                tokens -= 1
                granted += 1
                assert full_in == (burst - tokens) * interval
            else:
                assert wait == (1 - tokens) * interval
            time.sleep(rng.choice((0, 0, 0, 0.002, 0.006)))
    assert burst < granted < 400


def test_too_many_requests_are_told_how_long_to_wait(serve: Serve, gateway_settings: Settings, store: Store) -> None:
    with client_of(serve, gateway_settings, store, requests_per_minute=3) as client:
        replies = [client.get("/v1/detectors") for _ in range(4)]
        public = client.get("/livez")

    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"key";q=3;w=60'}
    assert [reply.headers["RateLimit"] for reply in replies] == [
        '"key";r=2;t=20',
        '"key";r=1;t=40',
        '"key";r=0;t=60',
        '"key";r=0;t=60',
    ]
    assert told(replies[-1]) == (429, "rate_limited")
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= 20
    assert public.status_code == 200
    assert "RateLimit" not in public.headers


def test_a_rate_is_a_keys_own(serve: Serve, gateway_settings: Settings, store: Store) -> None:
    with (
        client_of(serve, gateway_settings, store, requests_per_minute=1) as one,
        client_of(serve, gateway_settings, store, requests_per_minute=1) as other,
    ):
        assert [one.get("/v1/detectors").status_code for _ in range(2)] == [200, 429]
        assert other.get("/v1/detectors").status_code == 200  # another gateway, the same Redis
        assert other.get("/v1/detectors", headers={"X-API-Key": one.headers["X-API-Key"]}).status_code == 429


def test_without_redis_nobody_is_refused_for_a_rate(
    serve: Serve, gateway_settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    lonely = gateway_settings.model_copy(update={"redis_url": AWAY})
    with client_of(serve, lonely, store, requests_per_minute=1, concurrent=1) as client:
        replies = [client.get("/v1/detectors") for _ in range(5)]
        assert client.post("/v1/analyses", files=FILES).status_code == 202
        assert told(client.post("/v1/analyses", files=FILES)) == (429, "rate_limited")  # Postgres counts these

    assert {reply.status_code for reply in replies} == {200}
    assert "RateLimit" not in replies[0].headers
    assert caplog.text.count("limits are not counted") == 1


def test_a_key_has_no_more_unfinished_analyses_than_it_may(
    serve: Serve, gateway_settings: Settings, store: Store
) -> None:
    with client_of(serve, gateway_settings, store, concurrent=2) as client:
        assert [client.post("/v1/analyses", files=FILES).status_code for _ in range(2)] == [202, 202]
        refused = client.post("/analyze", files=FILES)
        assert told(refused) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) >= 1
        with client_of(serve, gateway_settings, store, concurrent=1) as other:
            assert other.post("/v1/analyses", files=FILES).status_code == 202

        end_all(gateway_settings)

        assert client.post("/v1/analyses", files=FILES).status_code == 202


def test_simultaneous_uploads_do_not_slip_past_the_bound(
    serve: Serve, gateway_settings: Settings, store: Store
) -> None:
    with client_of(serve, gateway_settings, store, concurrent=3) as client, ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: client.post("/v1/analyses", files=FILES).status_code, range(24)))
        codes += [client.post("/v1/analyses", files=FILES).status_code for _ in range(4)]

    assert set(codes) == {202, 429}
    assert codes.count(202) == store.unfinished_count() == 3


def test_a_place_is_given_back_whatever_becomes_of_the_upload(
    serve: Serve, gateway_settings: Settings, store: Store
) -> None:
    with client_of(serve, gateway_settings, store, concurrent=1) as client:
        for _ in range(3):
            assert client.post("/v1/analyses", files={"file": ("a", b"")}).status_code == 422
        assert client.post("/v1/analyses", files=FILES).status_code == 202
    with Redis.from_url(gateway_settings.redis_url) as redis:
        assert redis.keys("clipwarden:places:*") == []


def test_an_analysis_is_not_counted_twice_while_its_place_is_given_back(
    serve: Serve, gateway_settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = limits.Limits._ask

    async def late(self: limits.Limits, script: str, key: str, *arguments: str | int) -> Any:
        if script is limits.GIVE_BACK:
            await asyncio.sleep(limits.MOMENT_S / 2)
        return await real(self, script, key, *arguments)

    monkeypatch.setattr(limits.Limits, "_ask", late)
    with client_of(serve, gateway_settings, store, concurrent=2) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/analyses", files=FILES)
        assert until(lambda: store.unfinished_count() == 1, 10)
        second = client.post("/v1/analyses", files=FILES)
        third = client.post("/v1/analyses", files=FILES)

    assert [first.result().status_code, second.status_code, third.status_code] == [202, 202, 429]


def test_a_slow_upload_keeps_its_place(
    serve: Serve, gateway_settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PLACE_S", 1)
    monkeypatch.setattr(limits, "RENEW_S", 0.1)
    enough = threading.Event()

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while not enough.wait(0.1):
            yield b"x"
        yield b"\r\n--b--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    with client_of(serve, gateway_settings, store, concurrent=1) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/v1/analyses", content=body(), headers=kind)
        time.sleep(1.5)
        rival = client.post("/v1/analyses", files=FILES)
        enough.set()
        assert slow.result().status_code == 202

    assert told(rival) == (429, "rate_limited")


def test_files_sent_ahead_are_bounded_until_analyses_name_them(
    serve: Serve, gateway_settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COUNT_S", 0)
    tight = gateway_settings.model_copy(update={"max_sent_ahead_bytes": 1500, "max_upload_bytes": 1000})
    with (
        client_of(serve, tight, store) as client,
        client_of(serve, tight, store, tenant="other") as other,
    ):
        upload = client.put("/v1/uploads/a", content=b"x" * 1000).raise_for_status().json()["id"]
        refused = client.put("/v1/uploads/b", content=b"y" * 501)
        unsaid = client.put("/v1/uploads/b", content=iter([b"y"]))
        announced = client.post("/v1/uploads", json={"filename": "b", "bytes": 501, "sha256": "0" * 64})
        theirs = other.put("/v1/uploads/b", content=b"y" * 501)
        client.post("/v1/analyses", json={"upload": upload}).raise_for_status()
        again = client.put("/v1/uploads/b", content=b"y" * 501)
        unread = raw(
            str(client.base_url),
            f"PUT /v1/uploads/a HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {client.headers['X-API-Key']}\r\n"
            "Content-Length: 1000\r\nConnection: close\r\n\r\n".encode(),
        )

    assert [told(each) for each in (refused, unsaid, announced)] == [(429, "rate_limited")] * 3
    assert int(refused.headers["Retry-After"]) > 0
    assert [theirs.status_code, again.status_code] == [201, 201]
    assert unread.startswith(b"HTTP/1.1 429 "), "before its body came"


def test_beyond_the_bound_nothing_is_taken_that_cannot_be_kept(
    serve: Serve,
    gateway_settings: Settings,
    store: Store,
    blobs: LocalBlobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "COUNT_S", 0.2)
    full = gateway_settings.model_copy(update={"max_unfinished": 2})
    with serve(full) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        taken = [client.post("/v1/analyses", files=FILES) for _ in range(2)]
        for path in ("/v1/analyses", "/analyze"):
            refused = client.post(path, files=FILES)
            assert told(refused) == (503, "overloaded")
            assert int(refused.headers["Retry-After"]) >= 1
        kept = sorted(blobs.keys())
        assert client.get(taken[0].headers["Location"]).status_code == 200

        end_all(full)
        time.sleep(0.25)
        again = client.post("/v1/analyses", files=FILES)

    assert [reply.status_code for reply in [*taken, again]] == [202, 202, 202]
    assert len(kept) == 1, "the same bytes are kept once"


def test_what_was_opened_before_needs_no_room(
    serve: Serve, gateway_settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    first, again = {"Idempotency-Key": "first"}, {"Idempotency-Key": "again"}
    with client_of(serve, gateway_settings, store, concurrent=1) as client:
        opened = client.post("/v1/analyses", files=FILES, headers=first).raise_for_status().json()["id"]
        finish(store, blobs, UUID(opened))
        reruns = [client.post(f"/v1/analyses/{opened}/rerun", headers=again) for _ in range(2)]
        assert told(client.post(f"/v1/analyses/{opened}/rerun")) == (429, "rate_limited")
        other = {**client.headers, **first}
        insert_unfinished(gateway_settings)
        full = gateway_settings.model_copy(update={"max_unfinished": 1})
        with serve(full) as url, httpx.Client(base_url=url, headers=other, trust_env=False, timeout=30) as late:
            repeated = late.post("/v1/analyses", files=FILES)

    assert [reply.status_code for reply in reruns] == [202, 202]
    assert reruns[0].json()["id"] == reruns[1].json()["id"]
    assert (repeated.status_code, repeated.json()["id"]) == (200, opened)


def raw(url: str, sent: bytes, timeout_s: float = 10) -> bytes:
    """All that the gateway answers to these bytes until it hangs up."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout_s) as opened:
        opened.sendall(sent)
        answer = b""
        while chunk := opened.recv(65536):
            answer += chunk
    return answer


def test_an_upload_that_is_refused_is_told_before_its_body_is_sent(
    serve: Serve, gateway_settings: Settings, store: Store
) -> None:
    roomy = gateway_settings.model_copy(update={"max_upload_bytes": 10**9, "max_unfinished": 1})
    head = "POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n{}\r\n"
    with client_of(serve, roomy, store, requests_per_minute=2) as client:
        secret = client.headers["X-API-Key"]
        assert client.post("/v1/analyses", files=FILES).status_code == 202
        without = raw(str(client.base_url), head.format("").encode())
        with_key = [raw(str(client.base_url), head.format(f"X-API-Key: {secret}\r\n").encode()) for _ in range(2)]

    assert [answer.split(b" ", 2)[1] for answer in (without, *with_key)] == [b"401", b"503", b"429"]


def test_a_head_that_never_ends_is_hung_up_on(
    serve: Serve, gateway_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.4)
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/livez").status_code == 200
        assert raw(url, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").startswith(b"HTTP/1.1 408 ")
        assert raw(url, b"") == b""
        assert raw(url, b"\r\n") == b""
        assert client.get("/livez").status_code == 200
        second = raw(url, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HT")
        assert second.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in second


def test_a_slow_upload_is_no_slow_head(
    serve: Serve, gateway_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(4):
            time.sleep(0.1)
            yield b"x"
        yield b"\r\n--b--\r\n"

    with serve(gateway_settings) as url:
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert httpx.post(f"{url}/v1/analyses", content=body(), headers=kind, trust_env=False).status_code == 202


def test_large_heads_are_refused(gateway: httpx.Client, gateway_url: str) -> None:
    reply = gateway.get("/livez", headers={"X-Large": "x" * 10_000})
    assert told(reply) == (431, "bad_request")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert json.loads(reply.content)["status"] == 431
    assert gateway.get("/livez", headers={f"X-{i}": "x" for i in range(2000)}).status_code == 431
    assert gateway.get("/livez", headers={"X-Large": "x" * 7_000}).status_code == 200

    endless = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X-More: " + b"y" * 400_000
    parts = urlsplit(gateway_url)
    with socket.create_connection((parts.hostname, parts.port), 10) as opened:
        try:
            opened.sendall(endless)
            answer = opened.recv(65536)
        except ConnectionError:
            answer = b"HTTP/1.1 431 "  # hung up on before all of it was sent
    assert answer.startswith(b"HTTP/1.1 431 ")
