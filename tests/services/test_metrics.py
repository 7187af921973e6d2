"""What the processes tell of themselves: counted once, by whichever of them, and not lost with one that is killed."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.shared import metrics
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Manifest
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.exposing import expose
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.workers.census import Counting
from tests.analyses import finish


def value(name: str, **labels: str) -> float:
    told = (registry.get_sample_value(name, labels) for registry in (metrics.GATEWAY, metrics.WORKER, metrics.SWEEPER))
    return next((number for number in told if number is not None), 0.0)


@pytest.fixture
def grown() -> Callable[..., float]:
    """How much a counter has grown since the test began, or since it was first asked for."""
    before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def by(name: str, **labels: str) -> float:
        now, key = value(name, **labels), (name, tuple(sorted(labels.items())))
        return now - before.setdefault(key, now)

    return by


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def execute(settings: Settings, statement: str) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text(statement))
    engine.dispose()


def let_settle(settings: Settings) -> None:
    """As if what ended had done so ten seconds ago, and the last count had been a minute ago."""
    for table in ("analyses", "stages", "deliveries"):
        execute(settings, f"UPDATE {table} SET finished_at = finished_at - interval '10 seconds'")
    execute(
        settings,
        "UPDATE installation SET value = CAST(clock_timestamp() - interval '1 minute' AS text)"
        " WHERE key = 'counted_until'",
    )


@pytest.fixture
def submit(store: Store) -> Callable[[], UUID]:
    store.publish("sha256:p", Manifest(detectors=(), faces="f", fusion=f"sha256:{'f' * 64}"))
    return lambda: store.submit(NewAnalysis("a.mp4", 9, "ab", "uploads/x", "sha256:p", 60)).id


def test_a_request_is_counted_under_its_route_and_a_refusal_under_its_code(gateway, clip_file, grown) -> None:
    sent = {"method": "POST", "route": "/v1/analyses", "status": "202"}
    read = {"method": "GET", "route": "/v1/analyses/{analysis_id}", "status": "404"}
    ahead = {"method": "PUT", "route": "/v1/uploads/{filename:path}", "status": "201"}
    strange = {"method": "GET", "route": "none", "status": "404"}
    for labels in (sent, read, ahead, strange):
        grown("clipwarden_http_requests_total", **labels)
    grown("clipwarden_http_problems_total", code="not_found"), grown("clipwarden_upload_bytes_total")
    grown("clipwarden_http_request_seconds_count", route="/v1/analyses")

    with clip_file.open("rb") as file:
        gateway.post("/v1/analyses", files={"file": file}).raise_for_status()
    assert gateway.get("/v1/analyses/019f0000-0000-7000-8000-000000000000").status_code == 404
    assert gateway.put("/v1/uploads/a.mp4", content=b"123").status_code == 201
    assert gateway.get("/v1/analyses/x/y/z/a-path-of-a-stranger").status_code == 404

    assert grown("clipwarden_http_requests_total", **sent) == 1
    assert grown("clipwarden_http_requests_total", **read) == 1
    assert grown("clipwarden_http_requests_total", **ahead) == 1
    assert grown("clipwarden_http_requests_total", **strange) == 1
    assert grown("clipwarden_http_problems_total", code="not_found") == 2
    assert grown("clipwarden_upload_bytes_total") == clip_file.stat().st_size + 3
    assert grown("clipwarden_http_request_seconds_count", route="/v1/analyses") == 1


def test_what_ended_is_counted_once_however_many_count(settings, store, submit, grown) -> None:
    one, other = Counting(settings), Counting(settings)
    one.count()
    done = {"state": "done", "code": "none", "reused": "false"}
    verdict = {"label": "fake", "head": "visual", "degraded": "false"}
    skipped = {"stage": "audio", "status": "skipped", "code": "no_weights"}
    detector = {"detector": "forensic_mlp", "status": "ok", "code": "none"}
    for name, labels in (
        ("clipwarden_analyses_ended_total", done),
        ("clipwarden_verdicts_total", verdict),
        ("clipwarden_verdict_probability_count", {"head": "visual"}),
        ("clipwarden_stage_outcomes_total", skipped),
        ("clipwarden_stage_seconds_count", {"stage": "visual"}),
        ("clipwarden_detector_outcomes_total", detector),
        ("clipwarden_detector_seconds_sum", {"detector": "forensic_mlp"}),
    ):
        grown(name, **labels)
    finish(store, LocalBlobs(settings.blobs), submit())
    let_settle(settings)
    for counting in (other, one, other):
        counting.count()

    assert grown("clipwarden_analyses_ended_total", **done) == 1
    assert grown("clipwarden_verdicts_total", **verdict) == 1
    assert grown("clipwarden_verdict_probability_count", head="visual") == 1
    assert grown("clipwarden_stage_outcomes_total", **skipped) == 1
    assert grown("clipwarden_stage_seconds_count", stage="visual") == 1
    assert grown("clipwarden_detector_outcomes_total", **detector) == 1
    assert grown("clipwarden_detector_seconds_sum", detector="forensic_mlp") == pytest.approx(1.5)


def test_what_ended_a_moment_ago_is_counted_later(settings, store, submit) -> None:
    assert store.ended().analyses == []
    finish(store, LocalBlobs(settings.blobs), submit())
    assert store.ended().analyses == []
    let_settle(settings)
    assert [ended.code for ended in store.ended().analyses] == [None]


def test_what_ended_at_once_is_counted_bit_by_bit(settings, store, submit, monkeypatch) -> None:
    monkeypatch.setattr("clipwarden.shared.store.census.MOST_ROWS", 2)
    assert store.ended().analyses == []
    ids = [submit() for _ in range(5)]
    execute(settings, "UPDATE analyses SET state = 'cancelled', finished_at = clock_timestamp()")
    let_settle(settings)
    counted = [[ended.id for ended in store.ended().analyses] for _ in range(4)]
    assert [len(some) for some in counted] == [2, 2, 1, 0]
    assert sorted(each for some in counted for each in some) == sorted(ids)


def test_what_waits_is_shown_by_pool_and_queue(settings, store, submit, redis_url) -> None:
    submit(), submit()
    with Redis.from_url(redis_url) as client:
        client.lpush("ingest", "a")
        client.lpush("ingest\x06\x169", "b", "c")
    execute(settings, "UPDATE stages SET created_at = created_at - interval '90 seconds'")
    Counting(settings).count()
    assert value("clipwarden_stage_rows", stage="ingest", status="open") == 2
    assert value("clipwarden_stage_oldest_seconds", stage="ingest", lane="realtime") == pytest.approx(90, abs=20)
    assert value("clipwarden_stage_oldest_seconds", stage="visual", lane="bulk") == 0
    assert value("clipwarden_unfinished_analyses", pipeline="sha256:p") == 2
    assert value("clipwarden_queue_messages", queue="ingest", lane="realtime") == 1
    assert value("clipwarden_queue_messages", queue="ingest", lane="bulk") == 2


def test_of_a_redis_that_is_away_nothing_is_shown(settings) -> None:
    Counting(settings).count()
    assert list(metrics.QUEUE_MESSAGES.collect()[0].samples)
    Counting(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})).count()
    assert not list(metrics.QUEUE_MESSAGES.collect()[0].samples)


def test_what_was_shown_stays_until_redis_has_answered(settings, monkeypatch) -> None:
    counting, shown = Counting(settings), []
    counting.count()
    ask = Redis.llen
    seen = lambda: len(list(metrics.QUEUE_MESSAGES.collect()[0].samples))  # noqa: E731
    monkeypatch.setattr(Redis, "llen", lambda client, key: (shown.append(seen()), ask(client, key))[1])
    counting.count()
    assert set(shown) == {seen()}


def test_metrics_and_health_have_a_port_of_their_own(port) -> None:
    ready = []
    expose(Settings(metrics_port=port), metrics.GATEWAY, lambda: bool(ready))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        shown = client.get("/metrics").text
        assert "clipwarden_http_requests_total" in shown
        assert "process_start_time_seconds" in shown
        assert "clipwarden_sweep_seconds" not in shown
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        ready.append(True)
        assert client.get("/readyz").status_code == 200
        assert client.get("/").status_code == 404
    with pytest.raises(ConfigError, match="CLIPWARDEN_METRICS_PORT"):
        expose(Settings(metrics_port=port), metrics.GATEWAY)


COUNTER = """
import signal
from clipwarden.shared.exposing import say_ready
from clipwarden.shared.metrics import CALLBACK_SECONDS, CALLBACKS_WAITING
say_ready()
CALLBACK_SECONDS.labels("ok").observe(0.5)
CALLBACKS_WAITING.set(7)
print("counted", flush=True)
signal.pause()
"""
PARENT = """
import sys
from clipwarden.shared.exposing import expose, pool_ready, share_counts
from clipwarden.shared.settings import load_settings
folder = share_counts()
from clipwarden.shared.metrics import WORKER
expose(load_settings(), WORKER, pool_ready)
print(folder, flush=True)
sys.stdin.read()
"""


@contextmanager
def counting(script: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and its first line."""
    words = [sys.executable, "-c", script]
    given = {**os.environ, **environment}
    with subprocess.Popen(words, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def test_a_killed_pool_process_takes_no_counts_along_and_leaves_no_gauge(port: int) -> None:
    made = ("clipwarden_callback_seconds_count", (("end", "ok"),))
    with counting(PARENT, CLIPWARDEN_METRICS_PORT=str(port)) as (_, folder):
        shared = {"PROMETHEUS_MULTIPROC_DIR": folder}
        assert not is_ready(port)
        with counting(COUNTER, **shared) as (_, line):
            assert (line, is_ready(port), scrape(port)[made]) == ("counted", True, 1)
        assert (is_ready(port), scrape(port)[made]) == (False, 1)
        with counting(COUNTER, **shared) as (_, line):
            assert (line, is_ready(port), scrape(port)[made]) == ("counted", True, 2)
        shown = scrape(port)
    assert {name.partition("_bucket")[0] for name, _ in shown if name.startswith("clipwarden")} == {
        "clipwarden_callback_seconds",
        "clipwarden_callback_seconds_count",
        "clipwarden_callback_seconds_sum",
    }
    shutil.rmtree(folder)


HANDS_BACK = """
import signal
from uuid import uuid4
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import ElsewherePlease
from clipwarden.shared.exposing import say_ready
from clipwarden.workers.telemetry import told
say_ready()
try:
    with told(uuid4(), Stage.VISUAL, 1, "visual@test"):
        raise ElsewherePlease("the detectors of visual here are not those of the analysis's pipeline")
except ElsewherePlease:
    print("handed back", flush=True)
signal.pause()
"""


def test_a_worker_without_a_pipelines_weights_says_so_in_its_health_and_metrics(port: int) -> None:
    with (
        counting(PARENT, CLIPWARDEN_METRICS_PORT=str(port)) as (_, folder),
        counting(HANDS_BACK, PROMETHEUS_MULTIPROC_DIR=folder),
    ):
        assert "are not those of the analysis's pipeline" in httpx.get(f"http://127.0.0.1:{port}/readyz").text
        assert scrape(port)["clipwarden_task_seconds_count", (("end", "elsewhere"), ("stage", "visual"))] == 1
    shutil.rmtree(folder)


def is_ready(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
