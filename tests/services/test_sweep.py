"""The sweeper sends what was lost, holds back what was not, and cleans up, on real servers."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import create_engine, text
from structlog.testing import capture_logs

from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.shared.blobs import LocalBlobs, bundle_folder
from clipwarden.shared.codes import FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import AnalysisState, Branch, Label, Manifest, MediaKind, MediaProbe, Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.local.child import until
from clipwarden.shared.metrics import SWEEPER
from clipwarden.shared.queue import SENTINEL_KEY, Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.workers import tasks
from clipwarden.workers.census import Counting
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.sweep import Sweeper, sweep_and_count

PROBE = MediaProbe(
    kind=MediaKind.IMAGE,
    container="png",
    duration_s=0,
    width=64,
    height=64,
    fps=0,
    frames=1,
    has_video=True,
    has_audio=False,
    size_bytes=9,
)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def analysis_id(store: Store) -> UUID:
    store.publish("sha256:p", Manifest(detectors=(), faces="f", fusion=read_bundle(bundle_path())[1]))
    new = NewAnalysis("a.png", 9, "ab", "uploads/x", "sha256:p", deadline_s=60)
    return store.submit(new).id


def make_due(settings: Settings) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE stages SET not_before = clock_timestamp() - interval '1 second'"))
    engine.dispose()


def test_an_emptied_broker_gets_every_open_stage_at_once(settings: Settings, redis: Redis, analysis_id: UUID) -> None:
    sweeper = Sweeper(settings)
    assert sweeper.sweep()["sent"] == 1
    assert redis.llen("ingest") == 1
    assert redis.get(SENTINEL_KEY) is not None
    assert sweeper.sweep()["sent"] == 0
    redis.flushall()
    assert sweeper.sweep()["sent"] == 1


def test_a_lost_message_is_sent_again_but_a_waiting_one_is_not(
    settings: Settings, redis: Redis, analysis_id: UUID
) -> None:
    sweeper = Sweeper(settings)
    sweeper.sweep()
    make_due(settings)
    assert sweeper.sweep()["sent"] == 0
    assert redis.llen("ingest") == 1
    redis.delete("ingest")
    make_due(settings)
    assert sweeper.sweep()["sent"] == 1
    assert redis.llen("ingest") == 1


def test_a_forgotten_analysis_is_fused_without_redis(settings: Settings, store: Store, analysis_id: UUID) -> None:
    claim = store.claim(analysis_id, Stage.INGEST, 60, 3, "w")
    assert isinstance(claim, Granted)
    store.finish_ingest(analysis_id, claim.token, PROBE, [], dict.fromkeys(Branch, SkipCode.NO_WEIGHTS))
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE stages SET finished_at = clock_timestamp() - interval '5 seconds'"))
    engine.dispose()
    deaf = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    assert Sweeper(deaf).sweep()["fused"] == 1
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert analysis.state is AnalysisState.DONE
    assert analysis.verdict is not None
    assert (analysis.verdict.label, analysis.verdict.probability) == (Label.INCONCLUSIVE, None)


def test_uploads_of_rejected_files_and_orphans_are_deleted_and_others_stay(
    settings: Settings, store: Store, analysis_id: UUID
) -> None:
    blobs = LocalBlobs(settings.blobs)
    for key in ("uploads/x", "uploads/orphan", "uploads/fresh", "partial/dead"):
        blobs.path(key).parent.mkdir(exist_ok=True)
        blobs.path(key).write_bytes(b"x")
    long_ago = time.time() - 7200
    for key in ("uploads/x", "uploads/orphan", "partial/dead"):
        os.utime(blobs.path(key), (long_ago, long_ago))
    sweeper = Sweeper(settings)
    assert sweeper.sweep()["orphans_deleted"] == 2
    assert list(blobs.keys()) == ["uploads/fresh", "uploads/x"]
    claim = store.claim(analysis_id, Stage.INGEST, 60, 3, "w")
    assert isinstance(claim, Granted)
    store.end_ingest(analysis_id, claim.token, RejectCode.NOT_MEDIA, "no")
    assert sweeper.sweep()["uploads_deleted"] == 1
    assert list(blobs.keys()) == ["uploads/fresh"]


def test_one_analysis_that_cannot_be_judged_does_not_stop_the_others(
    settings: Settings, store: Store, redis: Redis, analysis_id: UUID
) -> None:
    broken = store.submit(NewAnalysis("b.png", 9, "ab", "uploads/y", "sha256:p", deadline_s=60)).id
    claim = store.claim(broken, Stage.INGEST, 60, 3, "w")
    assert isinstance(claim, Granted)
    store.finish_ingest(broken, claim.token, PROBE, [], dict.fromkeys(Branch, SkipCode.NO_WEIGHTS))
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE stages SET finished_at = clock_timestamp() - interval '5 seconds'"))
        c.execute(text("UPDATE stages SET outcome = outcome || '{\"unknown\": 1}' WHERE stage = 'visual'"))
    engine.dispose()
    done = Sweeper(settings).sweep()
    assert (done["unfusable"], done["fused"], done["sent"]) == (1, 0, 1)


def test_bundles_of_ended_analyses_are_deleted(settings: Settings, store: Store, analysis_id: UUID) -> None:
    blobs = LocalBlobs(settings.blobs)
    ended = store.submit(NewAnalysis("b.png", 9, "ab", "uploads/y", "sha256:p", deadline_s=60)).id
    claim = store.claim(ended, Stage.INGEST, 60, 3, "w")
    assert isinstance(claim, Granted)
    store.end_ingest(ended, claim.token, RejectCode.NOT_MEDIA, "no")
    long_ago = time.time() - 7200
    for each in (ended, analysis_id):
        part = blobs.path(f"{bundle_folder(each)}/visual")
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x")
        os.utime(part.parent, (long_ago, long_ago))
    Sweeper(settings).sweep()
    assert list(blobs.keys()) == [f"{bundle_folder(analysis_id)}/visual"]


def test_a_crowded_queue_costs_no_patience(settings: Settings, redis: Redis, analysis_id: UUID) -> None:
    sweeper = Sweeper(settings)
    sweeper.sweep()
    for _ in range(5):
        make_due(settings)
        assert sweeper.sweep()["sent"] == 0
    redis.delete("ingest")
    assert sweeper.sweep()["sent"] == 1


def test_a_blob_store_that_is_away_keeps_nothing_from_being_sent_and_counted(
    settings: Settings, analysis_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper = Sweeper(settings)

    def away(*_: object) -> Iterator[list[str]]:
        raise Unavailable("the blob store is away")

    monkeypatch.setattr(LocalBlobs, "older_than", away)
    assert sweeper.sweep()["sent"] == 1


def test_what_is_overdue_is_ended_and_said_by_whoever_finds_it(
    settings: Settings, store: Store, analysis_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(settings.max_attempts):
        assert isinstance(store.claim(analysis_id, Stage.INGEST, 0, settings.max_attempts, "w"), Granted)
    process, fused = WorkerProcess(settings, Queue.FUSION), list[object]()
    monkeypatch.setattr(tasks, "here", lambda: process)
    monkeypatch.setattr(tasks.run_fuse, "apply_async", lambda args, **_: fused.append(args))
    with capture_logs() as told:
        tasks.run_settle.apply((str(analysis_id),)).get()
    process.store.close()
    (ended,) = [line for line in told if line["event"] == "ended"]
    assert (ended["analysis_id"], ended["code"], ended["last_worker"]) == (str(analysis_id), FailCode.POISON, "w")
    assert fused == [(str(analysis_id),)]


def test_without_postgres_a_sweep_is_unavailable_not_a_crash(settings: Settings, analysis_id: UUID) -> None:
    sweeper = Sweeper(settings)
    sweeper._store.close()
    sweeper._store = Store("postgresql://nobody@127.0.0.1:1/none", pool_size=2)
    with pytest.raises(Unavailable):
        sweeper.sweep()


def test_a_sweeper_that_stopped_in_the_middle_holds_the_others_up_for_a_while_only(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper, stopped = Sweeper(settings), ExitStack()
    with monkeypatch.context() as brief:
        brief.setattr("clipwarden.shared.store.upkeep.SWEEP_LIMIT_S", 1.0)
        assert stopped.enter_context(store.sweeping())
    assert sweeper.sweep() is None
    assert until(lambda: sweeper.sweep() is not None, 20)
    with pytest.raises(Unavailable):
        stopped.close()


def test_only_a_sweeper_that_sweeps_says_that_sweeping_goes_on(settings: Settings, store: Store) -> None:
    def last() -> float:
        return SWEEPER.get_sample_value("clipwarden_sweeper_last_success_timestamp_seconds") or 0.0

    sweeper, counting, before = Sweeper(settings), Counting(settings), last()
    with store.sweeping():
        assert sweep_and_count(sweeper, counting) is None
    assert last() == before
    assert sweep_and_count(sweeper, counting) is not None
    assert last() > before
