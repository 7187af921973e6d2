"""`clipwarden up`: one directory, one owner; what dies comes back, what cannot stay up is given up, nothing is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.local.child import started_at, until
from clipwarden.shared.local.stack import Stack, command_line, consumed_queues, gateway_ready
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.processes import PROCESSES, WATCHER
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings

OWNER = """
import sys, time
from pathlib import Path
from clipwarden.shared.local.stack import Stack
from clipwarden.shared.settings import Settings
stack = Stack(Path(sys.argv[1]), Settings(), table=(), setup=())
stack.start()
print(*stack.processes.values(), flush=True)
time.sleep(60)
"""


def servers_only(state_dir: Path, settings: Settings | None = None, **more: Any) -> Stack:
    return Stack(state_dir, settings or Settings(redis_url="", database_url=""), **{"table": (), "setup": (), **more})


@contextmanager
def up(state_dir: Path) -> Iterator[dict[str, Any]]:
    """The real command; yields its ready line."""
    with (state_dir.parent / "up.err").open("w") as notes:
        running = subprocess.Popen(
            [*command_line(), "up", "--json", "--state", str(state_dir)],
            stdout=subprocess.PIPE,
            stderr=notes,
            text=True,
        )
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        assert line, (state_dir.parent / "up.err").read_text()
        yield {**json.loads(line), "process": running}
    finally:
        running.terminate()
        running.wait(90)
        running.stdout.close()


def recorded(state_dir: Path) -> dict[str, int]:
    """Process id of every child by name, as the supervisor wrote it down."""
    files = [*(state_dir / "run").iterdir(), state_dir / "postgres" / "child", state_dir / "valkey" / "child"]
    return {path.name if path.name != "child" else path.parent.name: int(path.read_text().split()[0]) for path in files}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not started_at(pid), 5)


def test_the_whole_system_comes_back_from_kills_and_goes_on_a_signal(tmp_path):
    state = tmp_path / "a state"
    with up(state) as ready:
        assert {key: ready[key] for key in ("event", "state")} == {"event": "ready", "state": str(state)}
        with urllib.request.urlopen(f"{ready['api']}/readyz") as answer:
            assert answer.status == 200
        at_rest = json.loads((state / "ready.json").read_text())
        assert at_rest == {
            **{key: ready[key] for key in ("api", "flower", "redis", "database", "state")},
            "pid": ready["process"].pid,
        }
        before = recorded(state)
        assert set(before) == {process.name for process in (*PROCESSES, WATCHER)} | {"postgres", "valkey"}

        refused = subprocess.run(
            [*command_line(), "up", "--state", str(state)], capture_output=True, text=True, check=False
        )
        assert (refused.returncode, "another `clipwarden up` runs" in refused.stderr) == (1, True)

        victims = {"postgres", "valkey", "gateway", "audio"}
        for name in victims:
            kill(before[name])
        assert until(lambda: consumed_queues(ready["redis"]) == set(Queue) and gateway_ready(ready["api"]), 60)
        after = recorded(state)
        assert victims <= {name for name in before if before[name] != after[name]}

        ready["process"].send_signal(signal.SIGINT)
        assert ready["process"].wait(60) == 0
        assert not [pid for pid in after.values() if started_at(pid)]
        assert not (state / "ready.json").exists()


def test_processes_are_told_where_everything_is(tmp_path):
    if sys.platform != "linux":
        pytest.skip("the environment of a process can be read on Linux only")
    sweeper = [process for process in PROCESSES if process.name == "sweeper"]
    settings = Settings(log_level="WARNING", max_attempts=7)
    with Stack(tmp_path, settings, env={"CLIPWARDEN_SWEEP_EVERY_S": "1"}, table=sweeper) as stack:
        environ = Path(f"/proc/{stack.processes['sweeper']}/environ")  # empty while the program is being loaded
        assert until(lambda: b"CLIPWARDEN_" in environ.read_bytes(), 30)
        text = environ.read_bytes()
    given = dict(pair.decode().split("=", 1) for pair in text.split(b"\0") if pair)
    assert given["CLIPWARDEN_BLOB_DIR"] == str(tmp_path / "blobs")
    assert given["CLIPWARDEN_STATE_DIR"] == str(tmp_path)
    assert given["CLIPWARDEN_REDIS_URL"] == stack.redis_url
    assert given["CLIPWARDEN_DATABASE_URL"] == stack.database_url
    assert (given["CLIPWARDEN_LOG_LEVEL"], given["CLIPWARDEN_MAX_ATTEMPTS"]) == ("WARNING", "7")
    assert given["CLIPWARDEN_SWEEP_EVERY_S"] == "1"
    assert int(given["OMP_NUM_THREADS"]) >= 1


def test_a_server_that_the_settings_name_is_used_and_none_is_started(tmp_path):
    with EmbeddedValkey(tmp_path / "elsewhere") as server:
        settings = Settings(redis_url=server.url, database_url="")
        with servers_only(tmp_path / "state", settings) as stack:
            assert set(stack.processes) == {"postgres"}
            assert stack.redis_url == server.url
        assert server.alive()


def test_a_taken_port_is_passed_over_unless_it_was_asked_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with servers_only(tmp_path, Settings(port=port, redis_url="", database_url="")) as stack:
            assert not stack.api_url.endswith(f":{port}")
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            servers_only(tmp_path, port=port).start()


def test_a_server_that_keeps_dying_is_given_up_with_its_log_and_everything_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("clipwarden.shared.local.watch.FIRST_PAUSE_S", 0.05)
    with servers_only(tmp_path) as stack:
        other = stack.processes["postgres"]
        killed: set[int] = set()
        for _ in range(5):
            assert until(lambda: bool({stack.processes.get("valkey")} - killed - {None}), 20)
            pid = stack.processes["valkey"]
            killed.add(pid)
            kill(pid)
        assert stack.wait_ended(20)
        assert isinstance(stack.failure, Unavailable)
        assert "valkey died 5 times in a minute" in str(stack.failure)
        assert "Ready to accept connections" in str(stack.failure)
        assert not started_at(other)


def test_a_set_up_command_that_fails_ends_the_start_with_its_words(tmp_path):
    stack = servers_only(tmp_path, setup=(("db", "sideways"),))
    with pytest.raises(Unavailable, match=r"(?s)clipwarden db sideways failed.*invalid choice"):
        stack.start()
    assert stack.processes == {}


def test_a_gateway_that_never_answers_is_named(tmp_path):
    with (
        servers_only(tmp_path, table=PROCESSES[:1]) as stack,
        pytest.raises(Unavailable, match="no answer from gateway"),
    ):
        stack.wait_ready(timeout_s=2)


def test_what_a_killed_owner_leaves_does_not_stop_the_next(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    left = [int(word) for word in owner.stdout.readline().split()]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with servers_only(tmp_path) as stack:
        assert set(stack.processes) == {"postgres", "valkey"}
        assert not [pid for pid in left if started_at(pid)]


def test_stopping_twice_and_before_the_start_is_harmless(tmp_path):
    stack = servers_only(tmp_path)
    stack.stop()
    with servers_only(tmp_path) as other:
        assert other.processes
        other.stop()
        other.stop()
        assert other.processes == {}
