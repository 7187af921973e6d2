"""The servers fail: Redis may lose everything, Postgres may be away, the disk may be full."""

import shutil
import time

import httpx
import pytest

from tests.drills.drill import Drill

WAITING = ("visual", "lipsync")


def in_the_middle(drill: Drill) -> None:
    """Three analyses under way: branches held, others of them queued behind."""
    drill.yard.order(**{f"{branch}__any": "hold" for branch in WAITING})
    first, *_ = [drill.submit() for _ in range(3)]
    for branch in WAITING:
        drill.until_stage(first, branch, "leased")


def test_redis_emptied(drill: Drill) -> None:
    in_the_middle(drill)
    drill.yard.redis.flushall()
    drill.healed()
    drill.yard.order()
    drill.assert_nothing_lost()


def test_redis_killed_and_back_with_its_data(drill: Drill) -> None:
    in_the_middle(drill)
    drill.yard.kill_server(drill.yard.valkey)
    drill.submit()
    drill.yard.valkey.start()
    drill.healed()
    drill.yard.order()
    drill.assert_nothing_lost()


def test_redis_killed_and_back_empty(drill: Drill) -> None:
    in_the_middle(drill)
    drill.yard.kill_server(drill.yard.valkey)
    drill.submit()
    shutil.rmtree(drill.yard.valkey.directory / "appendonlydir")
    drill.yard.valkey.start()
    drill.healed()
    drill.yard.order()
    drill.assert_nothing_lost()


def test_postgres_restarted(drill: Drill) -> None:
    in_the_middle(drill)
    drill.yard.postgres.stop()
    drill.yard.postgres.start()
    drill.healed()
    drill.yard.order()
    drill.assert_nothing_lost()


def test_postgres_killed(drill: Drill) -> None:
    in_the_middle(drill)
    drill.yard.kill_server(drill.yard.postgres)
    drill.yard.postgres.start()
    drill.healed()
    drill.yard.order()
    drill.assert_nothing_lost()


def test_postgres_refusing_connections_for_ten_seconds(drill: Drill) -> None:
    in_the_middle(drill)
    with drill.yard.postgres_refusing():
        drill.yard.order()
        until = time.monotonic() + 10
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            drill.submit()
        time.sleep(until - time.monotonic())
    drill.healed()
    drill.assert_nothing_lost()


def test_disk_full_where_the_blobs_are(drill: Drill) -> None:
    if not drill.yard.has_own_disk:
        pytest.skip("only root may mount a disk to fill")
    drill.yard.order(ingest__any="hold")
    analysis_id = drill.submit()
    drill.until_stage(analysis_id, "ingest", "leased")
    with drill.yard.full_disk():
        with pytest.raises(httpx.HTTPStatusError, match="507"):
            drill.submit()
        drill.yard.order()
        drill.until_stage(analysis_id, "ingest", "open")
    drill.healed()
    drill.assert_nothing_lost()
    assert drill.stage(analysis_id, "ingest").attempts == 1
