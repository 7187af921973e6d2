"""What is accepted is ended, whatever dies on the way."""

from pathlib import Path

import pytest

from tests import media
from tests.e2e.conftest import System

LEASED = "SELECT 1 FROM stages WHERE analysis_id = :id AND stage = :stage AND status = 'leased'"
ATTEMPTS = "SELECT attempts, status FROM stages WHERE analysis_id = :id AND stage = :stage"


@pytest.fixture(scope="session")
def long_clip(media_dir: Path) -> Path:
    """Twenty seconds: long enough to be caught in the middle of any stage."""
    return media.write_clip(media_dir / "long.mp4", media.faces(500, 640, 640), media.speech(20))


def test_an_emptied_redis_between_ingest_and_fuse_loses_nothing(system: System, talking_head: Path) -> None:
    with system.frozen("visual"):
        analysis_id = system.submit(talking_head)
        system.until(ATTEMPTS + " AND status = 'ok'", id=analysis_id, stage="ingest")
        system.redis.flushall()
    done = system.wait(analysis_id)
    assert done["state"] == "done"
    assert done["branches"]["visual"]["status"] == "ok"
    assert done["verdict"]["degraded"] is False


@pytest.mark.parametrize(("worker", "stage"), [("ingest", "ingest"), ("visual", "visual"), ("audio", "audio")])
def test_a_worker_killed_in_the_middle_costs_an_attempt_and_no_analysis(
    system: System, long_clip: Path, worker: str, stage: str
) -> None:
    analysis_id = system.submit(long_clip)
    system.until(LEASED, id=analysis_id, stage=stage)
    system.kill(worker)
    killed_in_time = system.rows(LEASED, id=analysis_id, stage=stage)
    done = system.wait(analysis_id, 180)
    assert done["state"] == "done"
    assert done["branches"]["visual"]["status"] == done["branches"]["audio"]["status"] == "ok"
    assert killed_in_time, "the stage ended before the kill: the clip is too short for this machine"
    assert system.rows(ATTEMPTS, id=analysis_id, stage=stage) == [(2, "ok")]
    assert system.rows("SELECT count(*) FROM verdicts WHERE analysis_id = :id", id=analysis_id) == [(1,)]


def test_a_gateway_without_redis_still_accepts_and_the_sweeper_sends(system: System, talking_head: Path) -> None:
    with system.frozen("ingest"):
        analysis_id = system.submit(talking_head)
        system.redis.flushall()
    assert system.wait(analysis_id)["state"] == "done"


def test_a_bundle_that_vanishes_is_made_again(system: System, talking_head: Path) -> None:
    with system.frozen("visual"):
        analysis_id = system.submit(talking_head)
        system.until(ATTEMPTS + " AND status = 'ok'", id=analysis_id, stage="ingest")
        for key in system.blobs.keys():
            if analysis_id in key:
                system.blobs.delete(key)
    done = system.wait(analysis_id)
    assert done["branches"]["visual"]["status"] == "ok"
    assert system.rows(ATTEMPTS, id=analysis_id, stage="ingest") == [(2, "ok")]


def test_a_branch_that_loses_its_worker_every_time_is_poison_and_the_rest_is_judged(
    system: System, talking_head: Path
) -> None:
    with system.frozen("visual"):
        analysis_id = system.submit(talking_head)
        system.until(ATTEMPTS + " AND status = 'ok'", id=analysis_id, stage="ingest")
        with system.engine.begin() as c:
            from sqlalchemy import text

            c.execute(
                text(
                    "UPDATE stages SET status = 'leased', attempts = 3, leased_at = clock_timestamp(),"
                    " lease_until = clock_timestamp() WHERE analysis_id = :id AND stage = 'visual'"
                ),
                {"id": analysis_id},
            )
        system.until("SELECT 1 FROM analyses WHERE id = :id AND state = 'done'", id=analysis_id)
    done = system.wait(analysis_id)
    assert (done["branches"]["visual"]["status"], done["branches"]["visual"]["code"]) == ("failed", "poison")
    assert done["branches"]["audio"]["status"] == "ok"
    assert done["verdict"]["degraded"] is True
    assert done["verdict"]["coverage"] == 0.5
