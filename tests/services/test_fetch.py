"""The fetch stage on real servers: what a listener on loopback serves becomes an upload, or a rejection."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Analysis, AnalysisState, Manifest, Stage, StageStatus
from clipwarden.shared.queue import SENTINEL_KEY, Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Settled, Store
from clipwarden.workers.fetch import fetch
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.sweep import Sweeper
from tests import analyses
from tests.listeners import Listener, answer, listening, raw

CLIP = bytes(range(256)) * 40
LIMIT = 20_000
NAMES = {
    'attachment; filename="../../holiday.mov"': "holiday.mov",
    "inline; filename*=UTF-8''%F0%9F%8E%AC.mp4": "🎬.mp4",
    "attachment": "clip.bin",
    'attachment; filename=""': "clip.bin",
}
NO_FILES = (
    (answer(404), RejectCode.FETCH_FAILED),
    (answer(206, CLIP), RejectCode.FETCH_FAILED),
    (answer(body=b"<html>", Content_Type="text/html; charset=utf-8"), RejectCode.FETCH_FAILED),
    (answer(body=b"\x1f\x8b", Content_Encoding="gzip"), RejectCode.FETCH_FAILED),
    (answer(body=b""), RejectCode.EMPTY_FILE),
    (answer(body=b"x" * (LIMIT + 1)), RejectCode.FETCH_TOO_LARGE),
    (raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 4096] * 20), RejectCode.FETCH_TOO_LARGE),
)


@pytest.fixture
def origin() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def opened(settings: Settings, origin: Listener) -> Settings:
    """Settings that let the loopback listener be fetched from."""
    allowed = {"outbound_private": ("127.0.0.1/32",), "outbound_ports": (origin.port,), "max_upload_bytes": LIMIT}
    return settings.model_copy(update=allowed)


@pytest.fixture
def process(opened: Settings) -> Iterator[WorkerProcess]:
    made = WorkerProcess(opened, Queue.INGEST)
    yield made
    made.store.close()


def submit(store: Store, url: str, **asked: Any) -> UUID:
    store.publish("sha256:p", Manifest(detectors=(), faces="f", fusion=f"sha256:{'f' * 64}"))
    return store.submit(NewAnalysis("x", 0, "", None, "sha256:p", deadline_s=60, source_url=url, **asked)).id


def claim(process: WorkerProcess, analysis_id: UUID) -> Granted:
    granted = process.store.claim(analysis_id, Stage.FETCH, 60, 3, "test")
    assert isinstance(granted, Granted)
    return granted


def fetched(process: WorkerProcess, url: str, **asked: Any) -> Analysis:
    analysis_id = submit(process.store, url, **asked)
    fetch(process, analysis_id, claim(process, analysis_id))
    return read(process, analysis_id)


def read(process: WorkerProcess, analysis_id: UUID) -> Analysis:
    found = process.store.analysis(analysis_id)
    assert found is not None
    return found


def files(process: WorkerProcess) -> list[str]:
    return list(process.blobs.keys())


def test_a_file_is_fetched_and_handed_to_ingest(process: WorkerProcess, origin: Listener, redis_url: str) -> None:
    origin.answers = [answer(302, Location="/real/%C3%BCber.mp4?token=x"), answer(body=CLIP, Content_Type="video/mp4")]
    analysis = fetched(process, f"{origin.url}/short")

    assert (analysis.filename, analysis.size_bytes) == ("über.mp4", len(CLIP))
    assert analysis.sha256 == hashlib.sha256(CLIP).hexdigest()
    assert [(s.stage, s.status) for s in analysis.stages] == [
        (Stage.FETCH, StageStatus.OK),
        (Stage.INGEST, StageStatus.OPEN),
    ]
    assert process.blobs.read(analysis.upload_key or "") == CLIP
    with Redis.from_url(redis_url) as redis:
        assert redis.llen("ingest") == 1
    assert [due.sends for due in process.store.due(everything=True)] == [1]
    again = process.store.claim(analysis.id, Stage.FETCH, 60, 3, "test")
    assert isinstance(again, Settled)


def test_of_a_file_that_is_there_already_no_second_one_is_kept(
    process: WorkerProcess, origin: Listener, redis_url: str
) -> None:
    origin.answers = [answer(body=CLIP)]
    first, second = fetched(process, origin.url), fetched(process, origin.url)
    assert files(process) == [first.upload_key] == [second.upload_key]
    with Redis.from_url(redis_url) as redis:
        assert redis.llen("ingest") == 2  # neither may take over the other's run


def test_what_ends_with_its_file_is_told_at_once(process: WorkerProcess, origin: Listener, redis_url: str) -> None:
    origin.answers = [answer(body=CLIP)]
    first = fetched(process, origin.url, reusable=True)
    analyses.finish(process.store, process.blobs, first.id)
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        again = fetched(process, origin.url, reusable=True, callback_url=origin.url)
        assert again.state is AnalysisState.DONE
        assert (redis.llen("ingest"), redis.llen("notify")) == (0, 1)
        judged_otherwise = fetched(process, origin.url, reusable=True, policy="strict")
        assert judged_otherwise.state is AnalysisState.RUNNING
        assert (redis.llen("ingest"), redis.llen("fusion")) == (0, 1)


def test_the_server_names_the_file(process: WorkerProcess, origin: Listener) -> None:
    for header, name in NAMES.items():
        origin.answers = [answer(body=CLIP, Content_Disposition=header)]
        assert fetched(process, f"{origin.url}/clip.bin").filename == name


def test_a_private_address_is_refused_and_not_contacted(
    process: WorkerProcess, origin: Listener, settings: Settings
) -> None:
    process.settings = settings.model_copy(update={"outbound_ports": (origin.port,)})
    analysis = fetched(process, origin.url)
    assert (analysis.state, analysis.code) == (AnalysisState.REJECTED, RejectCode.FETCH_REFUSED)
    assert "not a public address" in (analysis.message or "")
    assert origin.received == []


def test_a_redirect_to_a_private_address_is_refused(process: WorkerProcess, origin: Listener) -> None:
    with listening("127.0.0.2") as inside:
        origin.answers = [answer(302, Location=f"http://127.0.0.2:{origin.port}/")]
        analysis = fetched(process, origin.url)
        assert analysis.code == RejectCode.FETCH_REFUSED
        assert inside.received == []


def test_what_is_no_file_is_rejected_at_once_and_leaves_nothing(process: WorkerProcess, origin: Listener) -> None:
    for reply, code in NO_FILES:
        origin.answers = [reply]
        origin.received.clear()
        analysis = fetched(process, origin.url)
        assert (analysis.state, analysis.code) == (AnalysisState.REJECTED, code)
        assert len(origin.received) == 1
    assert files(process) == []


def test_a_passing_failure_is_tried_again_with_patience(process: WorkerProcess, origin: Listener) -> None:
    broken = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"x")
    origin.answers = [answer(503), broken, answer(body=CLIP)]
    analysis_id = submit(process.store, origin.url)
    for patience_s in (5, 20):
        fetch(process, analysis_id, claim(process, analysis_id))
        assert read(process, analysis_id).stages[0].status is StageStatus.OPEN
        assert seconds_until_due(process) == pytest.approx(patience_s, abs=1)
        assert files(process) == []
    fetch(process, analysis_id, claim(process, analysis_id))
    assert read(process, analysis_id).size_bytes == len(CLIP)


def test_a_failure_that_does_not_pass_ends_with_the_last_attempt(process: WorkerProcess, origin: Listener) -> None:
    origin.answers = [answer(500)]
    analysis_id = submit(process.store, origin.url)
    for _ in range(3):
        fetch(process, analysis_id, claim(process, analysis_id))
    analysis = read(process, analysis_id)
    assert (analysis.state, analysis.code) == (AnalysisState.REJECTED, RejectCode.FETCH_FAILED)
    assert "500" in (analysis.message or "")


def test_a_server_that_drips_is_given_up(process: WorkerProcess, origin: Listener, opened: Settings) -> None:
    process.settings = opened.model_copy(update={"fetch_timeout_s": 0.3, "max_attempts": 1})
    origin.answers = [raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 100, pause=lambda: time.sleep(0.02))]
    analysis = fetched(process, origin.url)
    assert (analysis.code, "time is over" in (analysis.message or "")) == (RejectCode.FETCH_FAILED, True)


def test_who_lost_the_lease_leaves_no_file(process: WorkerProcess, origin: Listener) -> None:
    origin.answers = [answer(body=CLIP)]
    analysis_id = submit(process.store, origin.url)
    late = claim(process, analysis_id)
    expire_lease(process)
    owner = claim(process, analysis_id)
    fetch(process, analysis_id, owner)
    fetch(process, analysis_id, late)
    assert files(process) == [read(process, analysis_id).upload_key]


def test_a_lost_fetch_is_sent_again_though_files_wait_in_the_same_queue(
    process: WorkerProcess, opened: Settings, redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.set(SENTINEL_KEY, "present")
        redis.rpush("ingest", "{}")
        submit(process.store, "http://127.0.0.1/")
        process.store.submit(NewAnalysis("a", 1, "", "uploads/x", "sha256:p", deadline_s=60))
        execute(process, "UPDATE stages SET not_before = clock_timestamp() - interval '1 second' WHERE stage = 'fetch'")
        assert Sweeper(opened).sweep()["sent"] == 1
        assert b"clipwarden.fetch" in redis.lindex("ingest", 0)  # type: ignore[operator]


def test_the_attempt_after_the_last_is_poison(process: WorkerProcess) -> None:
    analysis_id = submit(process.store, "http://127.0.0.1/")
    for _ in range(3):
        claim(process, analysis_id)
        expire_lease(process)
    assert isinstance(process.store.claim(analysis_id, Stage.FETCH, 60, 3, "test"), Settled)
    assert read(process, analysis_id).state is AnalysisState.FAILED
    assert files(process) == []


def expire_lease(process: WorkerProcess) -> None:
    execute(process, "UPDATE stages SET lease_until = clock_timestamp() - interval '1 second'")


def execute(process: WorkerProcess, statement: str) -> None:
    engine = create_engine(process.settings.database_url)
    with engine.begin() as c:
        c.execute(text(statement))
    engine.dispose()


def seconds_until_due(process: WorkerProcess) -> float:
    engine = create_engine(process.settings.database_url)
    with engine.begin() as c:
        found = c.scalar(text("SELECT extract(epoch FROM not_before - clock_timestamp()) FROM stages"))
    engine.dispose()
    return float(found or 0)
