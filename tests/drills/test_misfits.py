"""One thing does not fit: a clip that kills, a branch that hangs, a worker that lacks something, a clock, a double."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from clipwarden.shared.blobs import UPLOADS, bundle_folder
from clipwarden.shared.local.child import until
from clipwarden.shared.local.valkey import free_port
from clipwarden.shared.queue import SENTINEL_KEY, Queue, Task, redis_keys
from clipwarden.shared.settings import PREFIX
from tests.drills.drill import Drill
from tests.drills.yard import Yard, write_weights
from tests.listeners import Listener, answer
from tests.queues import celery_app

BRANCHES = ("visual", "audio", "lipsync", "clip")
ALL_FOUR = "CAST(analysis_id AS text) = ANY(:ids) HAVING count(*) = 4"
CONNECTIONS = "SELECT application_name, count(*) AS n FROM pg_stat_activity WHERE application_name ~ '@' GROUP BY 1"


def branches(drill: Drill, analysis_id: str) -> dict[str, Any]:
    found: dict[str, Any] = drill.yard.http.get(f"/v1/analyses/{analysis_id}").raise_for_status().json()
    return found["branches"]


def test_clip_that_kills_its_worker_beside_healthy_ones(drill: Drill, red_clip: Path) -> None:
    drill.yard.order(visual__red="die")
    poison, *healthy = [drill.submit(path) for path in (red_clip, None, None)]
    drill.healed()
    drill.assert_nothing_lost()
    assert branches(drill, poison)["visual"]["code"] == "poison"
    assert branches(drill, poison)["audio"]["status"] == "ok"
    assert [drill.stage(each, "visual").status for each in healthy] == ["ok", "ok"]


def test_branch_that_hangs_and_one_that_cannot_be_interrupted(drill: Drill, red_clip: Path) -> None:
    drill.yard.order(visual__red="hang", lipsync__red="wedge")
    stuck, healthy = drill.submit(red_clip), drill.submit()
    drill.healed()
    drill.assert_nothing_lost()
    found = branches(drill, stuck)
    assert {found["visual"]["code"], found["lipsync"]["code"]} == {"timeout"}
    assert {b["status"] for b in branches(drill, healthy).values()} == {"ok"}


def test_blob_store_that_vanishes(drill: Drill) -> None:
    yard, away = drill.yard, drill.yard.disk / "away"
    before = yard.said("ingest", "worker leaves")
    yard.order(ingest__any="hold", visual__any="hold")
    analysis_id = drill.submit()
    drill.until_stage(analysis_id, "ingest", "leased")
    with yard.leaving(*Queue):
        yard.blobs.root.rename(away)
        yard.order()
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            drill.submit()
        assert until(lambda: yard.said("ingest", "worker leaves") > before, 60)
        assert not yard.blobs.root.exists()
        away.rename(yard.blobs.root)
        drill.healed()
        drill.assert_nothing_lost()
    assert {drill.stage(analysis_id, stage).attempts for stage in ("ingest", "visual")} == {1}


def test_bundle_that_vanishes(drill: Drill) -> None:
    with drill.yard.frozen("visual"):
        analysis_id = drill.submit()
        drill.until_stage(analysis_id, "ingest", "ok")
        drill.yard.blobs.delete_folder(bundle_folder(UUID(analysis_id)))
    drill.healed()
    drill.assert_nothing_lost()
    assert drill.stage(analysis_id, "ingest").attempts == 2
    assert drill.stage(analysis_id, "visual").status == "ok"


def test_worker_without_the_weights_of_the_pipeline(drill: Drill) -> None:
    weights = write_weights(drill.yard.state / "bare")
    (weights.parent / "forensic_mlp.json").unlink()
    port = free_port()
    lacking = {f"{PREFIX}WEIGHTS": str(weights), f"{PREFIX}METRICS_PORT": str(port)}
    with drill.yard.joined("visual-bare", "worker", "visual", "--name", "bare", **lacking):
        drill.healed()
        several = [drill.submit() for _ in range(6)]
        drill.assert_nothing_lost()
        assert drill.yard.said("visual-bare", "lacks what the published pipeline names")
        assert drill.yard.said("visual-bare", "stage handed back")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            health = client.get("/readyz").raise_for_status().text
            assert "lacks of the published pipeline: forensic_mlp" in health
            assert "handed back" in health
            assert 'clipwarden_worker_lacks{queue="visual"} 1.0' in client.get("/metrics").text
    for analysis_id in several:
        row = drill.stage(analysis_id, "visual")
        assert (row.status, row.attempts) == ("ok", 1)


def test_weights_that_vanish_under_a_worker_beside_a_healthy_one(drill: Drill) -> None:
    yard, name, why = drill.yard, "visual-robbed", "were here when this worker started"
    weights, before = write_weights(yard.state / "robbed"), yard.said(name, why)
    with (
        yard.joined(name, "worker", "visual", "--name", "robbed", **{f"{PREFIX}WEIGHTS": str(weights)}),
        yard.leaving(name),
    ):
        (weights.parent / "forensic_mlp.json").unlink()
        (child,) = yard.pool_children(name)
        os.kill(child, signal.SIGKILL)
        drill.healed()
        several = [drill.submit() for _ in range(4)]
        assert until(lambda: yard.said(name, why) > before, 60), yard.log(name)
        drill.assert_nothing_lost()
    assert {(row.status, row.attempts) for row in (drill.stage(each, "visual") for each in several)} == {("ok", 1)}


def test_two_pipelines_side_by_side(drill: Drill) -> None:
    yard = drill.yard
    weights = {f"{PREFIX}WEIGHTS": str(write_weights(yard.state / "other", other="forensic_mlp"))}
    yard.run("pipeline", "publish", **weights)
    newer = yard.store.current_pipeline()
    manifest = yard.store.manifest(newer)
    yard.run("pipeline", "publish")
    yard.order(**{f"{branch}__any": "hold" for branch in BRANCHES})
    old = drill.submit()
    drill.until_stage(old, "visual", "leased")
    yard.store.publish(newer, manifest)  # at once, before what is held is over its time
    try:
        new = drill.submit()
        yard.order()
        with yard.joined("visual-new", "worker", "visual", "--name", "new", **weights):
            drill.healed()
            drill.assert_nothing_lost()
    finally:
        yard.run("pipeline", "publish")
    judged = {key: drill.stage(key, "visual").outcome["detectors"][0]["weights"] for key in (old, new)}
    assert len(set(judged.values())) == 2
    for key, digest in judged.items():
        (row,) = yard.rows(
            "SELECT p.manifest FROM analyses a JOIN pipelines p ON p.id = a.pipeline_id WHERE a.id = :id", id=key
        )
        assert digest in {d["weights"] for d in row.manifest["detectors"]}


def test_every_message_delivered_twice(drill: Drill, world: Listener, clip: Path) -> None:
    yard, told = drill.yard, {"callback_url": f"{world.url}/hook"}
    world.received.clear()
    world.answers = [answer(body=clip.read_bytes()), answer(204)]
    with yard.frozen("ingest"):
        several = [drill.submit(**told) for _ in range(3)]
        named = {"url": f"{world.url}/a.mp4", "reuse": False, **told}
        several.append(drill.accepted(yard.http.post("/v1/analyses", json=named)))
        double(drill, ["ingest"])
    with yard.frozen("notify"):
        with yard.frozen("fusion"):
            with yard.frozen(*BRANCHES):
                yard.until(f"SELECT 1 FROM stages WHERE stage = 'ingest' AND status = 'ok' AND {ALL_FOUR}", ids=several)
                double(drill, BRANCHES)
            for branch in BRANCHES:
                for analysis_id in several:
                    drill.until_stage(analysis_id, branch, "ok")
            send_everything(drill, several)
            double(drill, ["fusion"])
        yard.until(f"SELECT 1 FROM deliveries WHERE {ALL_FOUR}", ids=several)
        double(drill, ["notify"])
    drill.healed()
    drill.assert_nothing_lost()
    yard.until(f"SELECT 1 FROM deliveries WHERE status = 'ok' AND {ALL_FOUR}", ids=several)
    assert {drill.stage(key, branch).attempts for key in several for branch in BRANCHES} == {1}
    assert drill.stage(several[-1], "fetch").attempts == 1
    assert sorted(received.method for received in world.received) == ["GET", *["POST"] * 4]


def send_everything(drill: Drill, several: Sequence[str]) -> None:
    """Once more every task that there is for an analysis."""
    with celery_app(drill.yard.settings) as app:
        for analysis_id in several:
            for task in (*Task,):
                if task is not Task.NOTIFY:
                    app.send_task(task.value, args=[analysis_id])


def double(drill: Drill, queues: Sequence[str]) -> None:
    """Put a copy of each waiting message into its queue, as it is; at least one must wait in each."""
    redis = drill.yard.redis
    for queue in queues:
        assert until(lambda queue=queue: any(redis.llen(key) for key in redis_keys(Queue(queue))), 60), queue
        for key in redis_keys(Queue(queue)):
            if messages := redis.lrange(key, 0, -1):
                redis.lpush(key, *messages)


@pytest.mark.parametrize("skew_s", [-3600, pytest.param(3600, marks=pytest.mark.long)])
def test_worker_whose_clock_is_wrong_by_an_hour(drill: Drill, skew_s: int) -> None:
    yard = drill.yard
    with yard.down("visual"):
        yard.kill("visual")
        with yard.joined("visual-skewed", "worker", "visual", "--name", "skewed", DRILL_SKEW_S=str(skew_s)):
            yard.order(visual__any="sleep 5")
            several = [drill.submit(), drill.submit()]
            drill.healed()
            drill.assert_nothing_lost()
    for analysis_id in several:
        row = drill.stage(analysis_id, "visual")
        assert (row.attempts, row.status) == (1, "ok")


def test_sweeper_whose_clock_is_two_hours_ahead(drill: Drill) -> None:
    yard, name = drill.yard, "sweeper-ahead"
    with yard.down("sweeper"), yard.blobs.create() as under_way:
        yard.kill("sweeper")
        under_way.write(b"half of an upload")
        with yard.blobs.create(f"{UPLOADS}/stray") as stray:
            os.utime(yard.blobs.path(stray.commit()), (0, 0))
        yard.add(name, ("sweep",), DRILL_SKEW_S="7200")
        try:
            assert until(lambda: not yard.blobs.path(stray.key).exists(), 60), yard.log(name)
            yard.blobs.delete(under_way.commit())
            drill.submit()
            drill.healed()
            drill.assert_nothing_lost()
        finally:
            yard.remove(name)


def test_workers_replaced_by_a_deployment(drill: Drill) -> None:
    yard = drill.yard
    yard.order(visual__any="sleep 1.5", lipsync__any="hold")
    analysis_id = drill.submit()
    for branch in ("visual", "lipsync"):
        drill.until_stage(analysis_id, branch, "leased")
    drill.healed()
    with yard.replaced("visual"), yard.replaced("lipsync"):
        drill.submit()
        drill.until_stage(analysis_id, "visual", "ok")
    yard.order()
    drill.assert_nothing_lost()
    assert drill.stage(analysis_id, "visual").attempts == 1
    assert drill.stage(analysis_id, "lipsync").attempts == 2


def test_every_pool_busy_with_one_connection_each(drill: Drill) -> None:
    yard = drill.yard
    yard.order(**{f"{who}__any": "hold" for who in BRANCHES})
    several = [drill.submit() for _ in range(2)]
    for branch in BRANCHES:
        drill.until_stage(several[0], branch, "leased")
    time.sleep(2 * yard.settings.heartbeat_s)
    held = {row.application_name: row.n for row in yard.rows(CONNECTIONS)}
    assert {name.partition("@")[0] for name in held} >= {"ingest", *BRANCHES}
    assert set(held.values()) == {1}
    drill.healed()
    yard.order()
    drill.assert_nothing_lost(faultless=True)


def waiting(yard: Yard) -> list[int]:
    """Messages that wait for each branch's workers."""
    return [yard.redis.llen(branch) for branch in BRANCHES]


def test_two_sweepers(drill: Drill) -> None:
    yard = drill.yard
    yard.add("sweeper-two", ("sweep",))
    try:
        with yard.frozen(*BRANCHES):
            analysis_id = drill.submit()
            drill.until_stage(analysis_id, "ingest", "ok")
            assert until(lambda: waiting(yard) == [1, 1, 1, 1], 60)
            yard.redis.flushall()
            assert until(lambda: bool(yard.redis.exists(SENTINEL_KEY)), 60)
            assert waiting(yard) == [1, 1, 1, 1]
            yard.kill("sweeper")
            yard.redis.flushall()
            drill.healed()
            assert until(lambda: bool(yard.redis.exists(SENTINEL_KEY)), 60)
        drill.assert_nothing_lost()
    finally:
        yard.remove("sweeper-two")
