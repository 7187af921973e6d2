"""kill -9 in the middle of the work: it costs an attempt, never an analysis."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from clipwarden.shared.local.child import until
from clipwarden.shared.local.stack import gateway_ready
from clipwarden.shared.processes import GATEWAY
from tests.drills.drill import RECOVERY_S, ROUNDS, Drill
from tests.drills.yard import LEASE_S, Yard
from tests.listeners import Answer, Listener, answer, raw

BRANCHES = ("visual", "audio", "lipsync", "clip")
HEAD = (
    "POST /v1/analyses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    "Content-Length: 9000000\r\n\r\n"
    '--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
)
HELD_UP = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'fusion@%' AND wait_event_type = 'Lock'"
TOLD = "SELECT 1 FROM deliveries WHERE analysis_id = :id AND status = 'ok'"


@contextmanager
def stalling(world: Listener, then: Answer) -> Iterator[None]:
    """The world begins its first answer and goes no further while the context lasts; later ones are as given."""
    over = threading.Event()
    world.received.clear()
    world.answers = [raw(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 9\r\n\r\n", pause=lambda: over.wait(60)), then]
    try:
        yield
    finally:
        over.set()


def killed(drill: Drill, *names: str) -> None:
    drill.yard.kill(*names)
    drill.healed()
    drill.yard.order()


def assert_recovered_in_time(drill: Drill, *names: str) -> None:
    """As promised where another worker is at hand: here one has to start, which takes what it takes.

    On a machine that does other things too, as when all tests run, only that nothing is lost is asserted.
    """
    assert_in_time(drill, drill.assert_nothing_lost(), *names)


def assert_in_time(drill: Drill, recovered_s: float, *names: str) -> None:
    killed_at = time.time() - (time.monotonic() - drill.healed_at)
    restart_s = max(drill.yard.ready_at(name) - killed_at for name in names)
    assert not ROUNDS or recovered_s < RECOVERY_S + max(0.0, restart_s - LEASE_S)


def test_ingest_worker_killed_while_it_ingests(drill: Drill) -> None:
    drill.yard.order(ingest__any="hold")
    analysis_id = drill.submit()
    drill.until_stage(analysis_id, "ingest", "leased")
    killed(drill, "ingest")
    assert_recovered_in_time(drill, "ingest")
    assert drill.stage(analysis_id, "ingest").attempts == 2


def test_ingest_worker_killed_while_it_fetches(drill: Drill, world: Listener, clip: Path) -> None:
    with stalling(world, answer(body=clip.read_bytes())):
        reply = drill.yard.http.post("/v1/analyses", json={"url": f"{world.url}/a.mp4", "reuse": False})
        analysis_id = drill.accepted(reply)
        assert until(lambda: bool(world.received), 60)
        killed(drill, "ingest")
    assert_recovered_in_time(drill, "ingest")
    assert drill.stage(analysis_id, "fetch").attempts == 2


def test_workers_of_all_branches_killed_while_they_judge(drill: Drill) -> None:
    drill.yard.order(**{f"{branch}__any": "hold" for branch in BRANCHES})
    analysis_id = drill.submit()
    for branch in BRANCHES:
        drill.until_stage(analysis_id, branch, "leased")
    killed(drill, *BRANCHES)
    assert_recovered_in_time(drill, *BRANCHES)
    assert {drill.stage(analysis_id, branch).attempts for branch in BRANCHES} == {2}


def test_worker_killed_beside_another_of_its_branch(drill: Drill) -> None:
    yard = drill.yard
    with yard.joined("visual-second", "worker", "visual", "--name", "second"):
        yard.order(visual__any="hold")
        analysis_id = drill.submit()
        drill.until_stage(analysis_id, "visual", "leased")
        pid = int(drill.stage(analysis_id, "visual").worker.rpartition(":")[2])
        killed(drill, next(name for name in ("visual", "visual-second") if pid in yard.members[name].pids))
        recovered_s = drill.assert_nothing_lost()
    assert drill.stage(analysis_id, "visual").attempts == 2
    assert not ROUNDS or recovered_s < RECOVERY_S


def test_fusion_worker_killed_while_it_decides(drill: Drill) -> None:
    drill.yard.order(visual__any="hold")
    analysis_id = drill.submit()
    drill.until_stage(analysis_id, "visual", "leased")
    with drill.yard.engine.begin() as c:
        c.execute(text("SELECT 1 FROM analyses WHERE id = :id FOR NO KEY UPDATE"), {"id": analysis_id})
        drill.yard.order()
        drill.yard.until(HELD_UP)
        killed(drill, "fusion")
    assert_recovered_in_time(drill, "fusion")


def test_notify_worker_killed_while_it_tells(drill: Drill, world: Listener) -> None:
    with stalling(world, answer(204)):
        analysis_id = drill.submit(callback_url=f"{world.url}/hook")
        assert until(lambda: bool(world.received), 60)
        killed(drill, "notify")
        drill.assert_nothing_lost()
        drill.yard.until(TOLD, id=analysis_id)
    drill.recovered.append(time.monotonic() - drill.healed_at)
    assert_in_time(drill, drill.recovered[-1], "notify")
    assert len({received.headers["webhook-id"] for received in world.received}) == 1
    assert len(world.received) == 2


def test_gateway_killed_during_an_upload(drill: Drill) -> None:
    drill.yard.order(visual__any="hold")
    drill.submit()
    accepted = drill.yard.rows("SELECT count(*) FROM analyses")
    with socket.create_connection(("127.0.0.1", drill.yard.settings.port)) as half:
        half.sendall(HEAD.encode() + bytes(4_000_000))
        assert until(lambda: any(key.startswith("partial/") for key in drill.yard.blobs.keys()), 30)
        killed(drill, GATEWAY)
        half.settimeout(10)
        with suppress(ConnectionError):
            assert half.recv(1) == b""
    assert until(lambda: gateway_ready(str(drill.yard.http.base_url)), 60)
    drill.assert_nothing_lost()
    assert drill.yard.rows("SELECT count(*) FROM analyses") == accepted
    drill.submit()
    drill.assert_nothing_lost()


def pool_child_killed_while_it_loads(drill: Drill, loading_s: float) -> None:
    yard = drill.yard
    yard.order(visual__any="hold", visual__load=f"sleep {loading_s}")
    analysis_id = drill.submit()
    drill.until_stage(analysis_id, "visual", "leased")
    (first,) = yard.pool_children("visual")
    ready = yard.said("visual", "worker ready")
    yard.order(visual__load=f"sleep {loading_s}")
    os.kill(first, signal.SIGKILL)
    second = next_child(yard, first)
    time.sleep(loading_s / 3)
    os.kill(second, signal.SIGKILL)
    next_child(yard, second)
    drill.healed()
    drill.submit()
    drill.assert_nothing_lost()
    assert yard.said("visual", "worker ready") == ready + 1, "the second was killed while it loaded, the third was not"
    assert drill.stage(analysis_id, "visual").attempts == 2


def next_child(yard: Yard, former: int) -> int:
    """The pool process that took another one's place."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [pid for pid in yard.pool_children("visual") if pid != former]
        return bool(found)

    assert until(there, 60), yard.log("visual")
    return found[0]


def test_pool_child_killed_while_it_loads_slow_models(drill: Drill) -> None:
    """Six seconds are more than the four that Celery grants a pool process by default."""
    pool_child_killed_while_it_loads(drill, 6)


@pytest.mark.long
def test_pool_child_killed_while_it_loads_for_twenty_seconds(drill: Drill) -> None:
    pool_child_killed_while_it_loads(drill, 20)
