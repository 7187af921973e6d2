"""A child process leaves nothing behind, however it or its parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.local.child import LOG_LIMIT_BYTES, Child, DirectoryLock, started_at, tail, until, write_private

STUBBORN = (
    "import signal,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)
WITH_CHILD = (
    "import subprocess,sys,time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(p.pid, flush=True); time.sleep(60)"
)
PARENT = """
import sys, time
from pathlib import Path
from signal import SIGTERM
from clipwarden.shared.local.child import Child
directory = Path(sys.argv[1])
child = Child(["sleep", "60"], record=directory / "record", log=directory / "log", steps=[(SIGTERM, 5.0)])
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def make(directory: Path, *argv: str, grace_s: float = 5.0) -> Child:
    steps = [(signal.SIGTERM, grace_s)]
    return Child(argv, record=directory / "record", log=directory / "log", steps=steps)


def gone(pid: int) -> bool:
    return not started_at(pid)


def test_stop_ends_a_child_softly_and_forgets_it(tmp_path):
    child = make(tmp_path, "sleep", "60")
    child.start()
    assert child.alive()
    child.stop()
    assert child.returncode == -signal.SIGTERM
    assert not (tmp_path / "record").exists()


def test_a_child_that_ignores_the_soft_signal_is_killed(tmp_path):
    child = make(tmp_path, sys.executable, "-c", STUBBORN, grace_s=0.2)
    child.start()
    assert until(lambda: "deaf" in tail(tmp_path / "log"), 10)
    child.stop()
    assert child.returncode == -signal.SIGKILL


def test_what_a_killed_child_started_itself_is_ended_before_it_starts_again(tmp_path):
    child = make(tmp_path, sys.executable, "-c", WITH_CHILD)
    child.start()
    assert until(lambda: tail(tmp_path / "log").strip().isdigit(), 10)
    grandchild = int(tail(tmp_path / "log"))
    os.kill(child.pid, signal.SIGKILL)
    assert until(lambda: not child.alive(), 5)
    assert not gone(grandchild)
    child.start()
    assert until(lambda: gone(grandchild), 5)
    child.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the system offers no signal on a parent's death")
def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert until(lambda: gone(pid), 5)


def test_a_leftover_of_a_crashed_parent_is_ended_by_the_next_start(tmp_path):
    leftover = subprocess.Popen(["sleep", "60"])
    write_private(tmp_path / "record", f"{leftover.pid} {started_at(leftover.pid)}\n")
    child = make(tmp_path, "sleep", "60")
    child.start()
    assert leftover.wait(5) == -signal.SIGTERM
    assert child.alive()
    child.stop()


def test_a_process_that_only_took_over_the_recorded_id_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"])
    write_private(tmp_path / "record", f"{stranger.pid} an-earlier-process\n")
    child = make(tmp_path, "sleep", "60")
    child.start()
    child.stop()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("text", ["", "not a number", "12"])
def test_a_damaged_record_does_not_stop_a_start(tmp_path, text):
    (tmp_path / "record").write_text(text)
    child = make(tmp_path, "true")
    child.start()
    assert child.wait(5)
    child.stop()


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no-such-program"):
        make(tmp_path, str(tmp_path / "no-such-program")).start()


def test_a_full_log_is_kept_once_and_begun_anew(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        log.truncate(LOG_LIMIT_BYTES + 1)
    child = make(tmp_path, "echo", "hello")
    child.start()
    assert child.wait(5)
    child.stop()
    assert tail(tmp_path / "log") == "hello"
    assert (tmp_path / "log.1").stat().st_size == LOG_LIMIT_BYTES + 1


def test_a_directory_has_one_owner_until_it_is_freed(tmp_path):
    first, second = (DirectoryLock(tmp_path / "lock", "it is taken") for _ in range(2))
    first.take()
    with pytest.raises(ConfigError, match="it is taken"):
        second.take()
    first.free()
    second.take()
    second.free()


def test_private_files_are_for_their_owner_only(tmp_path):
    write_private(tmp_path / "secret", "x")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
