"""What an analysis takes up in Redis and in Postgres, and what a million a day would need of them."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery, chord
from celery.contrib.testing.worker import start_worker
from redis import Redis
from sqlalchemy import Engine, create_engine, text

from clipwarden.models.assess import assess, load
from clipwarden.models.brief import brief
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.models.pipeline import pipeline_id
from clipwarden.models.run import part
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, BranchResult, MediaKind, MediaProbe, Stage
from clipwarden.shared.database import upgrade_schema
from clipwarden.shared.ids import new_id
from clipwarden.shared.local.child import until
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.queue import Queue, Task, assess_task, celery_config
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from tests.bench.figures import Bench, Figure, figure

MILLION, DAY_S = 1_000_000, 24 * 3600
ANALYSES = 200
VACUUM_EVERY = 50
"""As often as autovacuum would come by, so that what updates leave behind is used again."""
CHORDS = 100
TIMEOUT_S = 120.0
PROBE = MediaProbe(
    kind=MediaKind.VIDEO,
    container="mov,mp4,m4a,3gp,3g2,mj2",
    duration_s=8.0,
    width=1280,
    height=720,
    fps=25.0,
    frames=200,
    has_video=True,
    has_audio=True,
    size_bytes=2_000_000,
)


@figure
def postgres_footprint(bench: Bench) -> Iterator[Figure]:
    """Rows and indexes of analyses that the installed detectors judged, written as the workers write them."""
    results = [found(bench, branch) for branch in Branch if bench.manifest.ready(branch)]
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipwarden-footprint-")))
        server = stack.enter_context(EmbeddedPostgres(state))
        upgrade_schema(server.url)
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)
        store = Store(server.url, pool_size=1)
        stack.callback(store.close)
        store.publish(pipeline_id(bench.manifest), bench.manifest)
        before = size_bytes(engine)
        for n in range(ANALYSES):
            analyse(store, bench, results, n)
            if n % VACUUM_EVERY == VACUUM_EVERY - 1:
                _execute(engine, "VACUUM ANALYZE")
        each = (size_bytes(engine) - before) / ANALYSES
    yield Figure("postgres_bytes_per_analysis", each, "B", limit=32_768)
    yield Figure("Postgres for a million analyses", each * MILLION / 1e9, "GB")


def found(bench: Bench, branch: Branch) -> BranchResult:
    """What the installed detectors of a branch say of the sample, as its row holds it."""
    detectors = [load(entry, "cpu") for entry in bench.manifest.ready(branch)]
    return brief(assess(branch, part(bench.clip, bench.manifest.ready(branch)), detectors))


def analyse(store: Store, bench: Bench, results: Sequence[BranchResult], number: int) -> None:
    bundle, _ = read_bundle(bundle_path())
    new = NewAnalysis(
        "clip.mp4", 2_000_000, f"{number:064x}", f"uploads/{new_id().hex}", pipeline_id(bench.manifest), 1800
    )
    analysis_id = store.submit(new).id
    run = [result.branch for result in results]
    skipped = {branch: SkipCode.NO_WEIGHTS for branch in Branch if branch not in run}

    def token(stage: Stage) -> Any:
        claim = store.claim(analysis_id, stage, 60, 3, "worker@host:12345")
        assert isinstance(claim, Granted)
        return claim.token

    store.finish_ingest(analysis_id, token(Stage.INGEST), PROBE, run, skipped)
    store.mark_sent(analysis_id, [Stage(branch) for branch in run], 30)
    for result in results:
        store.finish_branch(analysis_id, token(Stage(result.branch)), result)
    assert store.fuse(analysis_id, lambda manifest, given, policy: judge(bundle, manifest, given, policy))


def size_bytes(engine: Engine) -> int:
    with engine.connect() as c:
        total = c.scalar(
            text(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace ="
                " CAST('public' AS regnamespace)"
            )
        )
    return int(total or 0)


def _execute(engine: Engine, statement: str) -> None:
    with engine.connect() as c:
        c.execute(text(statement))


@figure
def redis_footprint(_: Bench) -> Iterator[Figure]:
    """What Celery keeps of four branches and a fusion until it expires, and what an analysis takes that waits."""
    with tempfile.TemporaryDirectory(prefix="clipwarden-footprint-") as state, EmbeddedValkey(Path(state)) as server:
        settings = Settings(redis_url=server.url)
        redis = Redis.from_url(server.url)
        app = Celery("clipwarden", set_as_current=False)
        app.conf.update(celery_config(settings))
        before = held_bytes(redis)
        chords(app)
        kept = (held_bytes(redis) - before) / CHORDS
        for _ in range(CHORDS):
            app.send_task(Task.INGEST.value, args=[str(new_id())], ignore_result=True)
        waiting = held_bytes(redis, Queue.INGEST) / CHORDS
        app.close()
        redis.close()
    at_once = MILLION / DAY_S * settings.result_expires_s
    yield Figure("redis_bytes_per_analysis", kept, "B", limit=8_192)
    yield Figure("Redis bytes of an analysis that waits", waiting, "B", limit=4_096)
    yield Figure("Redis for a million analyses a day", kept * at_once / 1e6, "MB")


def chords(app: Celery) -> None:
    """Branches and fusion as ingest sends them, run by a worker of the same configuration that does no work."""
    branches = [_idle(app, assess_task(branch)) for branch in Branch]
    fuse = _idle(app, Task.FUSE, ignore_result=True)
    queues = [queue.value for queue in Queue]
    with start_worker(app, pool="solo", perform_ping_check=False, queues=queues, loglevel="ERROR"):
        for _ in range(CHORDS):
            aid = str(new_id())
            ended = chord([branch.si(aid) for branch in branches])(fuse.si(aid))
        with Redis.from_url(app.conf.broker_url) as redis:
            assert until(lambda: ended.parent.ready() and not redis.llen(Queue.FUSION), TIMEOUT_S)


def _idle(app: Celery, task: Task, **options: Any) -> Any:
    def work(analysis_id: str) -> None:
        pass

    return app.task(work, name=task.value, **options)


def held_bytes(redis: Redis, *keys: str) -> int:
    """Memory of these keys, or of all."""
    return sum(int(redis.memory_usage(key, samples=0) or 0) for key in keys or redis.scan_iter(count=1000))
