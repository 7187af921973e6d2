"""What is urgent is taken first, from real queues of a real Redis."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.shared.contracts import Branch, Lane
from clipwarden.shared.ids import new_id
from clipwarden.shared.queue import Queue, Task, redis_keys, send
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.workers import ingest
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.sweep import Sweeper
from tests.queues import celery_app
from tests.services.conftest import MANIFEST, PIPELINE

BULK = 20


@pytest.fixture
def celery(settings: Settings) -> Iterator[Celery]:
    with celery_app(settings) as app:
        yield app


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def taken(app: Celery, queue: Queue, count: int) -> Sequence[UUID]:
    """The analyses of the next messages, as a worker is handed them, one at a time."""
    found: list[UUID] = []

    def take(body: Any, message: Any) -> None:
        found.append(UUID(body[0][0]))
        message.ack()

    with app.connection_for_read() as connection, connection.channel() as channel:
        channel.basic_qos(0, 1, False)
        with app.amqp.TaskConsumer(channel, queues=[app.amqp.queues[queue.value]], callbacks=[take]):
            for _ in range(count):
                connection.drain_events(timeout=5)
    return found


def test_an_urgent_analysis_overtakes_twenty_others_before_ingest(settings: Settings, celery: Celery) -> None:
    bulk, urgent = [new_id() for _ in range(BULK)], new_id()
    for analysis_id in bulk:
        send(settings, Task.INGEST, analysis_id, Lane.BULK)
    send(settings, Task.INGEST, urgent, Lane.REALTIME)
    assert taken(celery, Queue.INGEST, BULK + 1) == [urgent, *bulk]


def test_an_urgent_analysis_overtakes_twenty_others_before_a_branch(
    settings: Settings, celery: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "app", celery)
    process = WorkerProcess(settings, Queue.INGEST)
    bulk, urgent = [new_id() for _ in range(BULK)], new_id()
    for analysis_id in bulk:
        ingest._dispatch(process, analysis_id, [Branch.VISUAL, Branch.AUDIO], Lane.BULK)
    ingest._dispatch(process, urgent, [Branch.VISUAL, Branch.AUDIO], Lane.REALTIME)
    for queue in (Queue.VISUAL, Queue.AUDIO):
        assert taken(celery, queue, 3) == [urgent, *bulk[:2]]
    process.store.close()


def test_the_sweeper_keeps_lanes_and_counts_what_waits_in_all_of_them(
    settings: Settings, store: Store, redis: Redis
) -> None:
    store.publish(PIPELINE, MANIFEST)
    for number, lane in enumerate([Lane.BULK, Lane.BULK, Lane.REALTIME]):
        store.submit(NewAnalysis("a.mp4", 1, f"{number}", f"uploads/{number}", PIPELINE, deadline_s=60, lane=lane))
    sweeper = Sweeper(settings)
    assert sweeper.sweep()["sent"] == 3
    first, second = redis_keys(Queue.INGEST)
    assert (redis.llen(first), redis.llen(second)) == (1, 2)
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE stages SET not_before = clock_timestamp() - interval '1 second'"))
    engine.dispose()
    assert sweeper.sweep()["sent"] == 0
