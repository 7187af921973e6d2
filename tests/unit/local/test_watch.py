"""What dies is started again, more slowly each time, and not for ever."""

import os
import signal
from pathlib import Path

import pytest

from clipwarden.shared.errors import Unavailable
from clipwarden.shared.local.child import Child, until
from clipwarden.shared.local.watch import Deaths, Watched


def watched(directory: Path, *argv: str) -> tuple[Watched, Child]:
    child = Child(argv, record=directory / "record", log=directory / "log", steps=[(signal.SIGTERM, 5.0)])
    child.start()
    return Watched("it", child), child


def test_the_pause_doubles_and_the_fifth_death_in_a_minute_is_the_last():
    deaths = Deaths()
    assert [deaths.pause_after(now) for now in (0, 1, 3, 7, 15)] == [0.5, 1.0, 2.0, 4.0, None]


def test_deaths_far_apart_never_add_up():
    deaths = Deaths()
    assert {deaths.pause_after(61.0 * n) for n in range(20)} == {0.5}


def test_a_killed_process_is_started_again_after_its_pause(tmp_path):
    it, child = watched(tmp_path, "sleep", "60")
    first = child.pid
    os.kill(first, signal.SIGKILL)
    assert until(lambda: not child.alive(), 5)
    notes: list[str] = []
    it.look(100.0, notes.append)
    it.look(100.4, notes.append)
    assert not child.alive()
    it.look(100.6, notes.append)
    assert child.alive()
    assert child.pid != first
    assert notes == ["it died, starting it again in 0.5 s"]
    child.stop()


def test_giving_up_shows_the_end_of_the_log(tmp_path):
    it, child = watched(tmp_path, "sh", "-c", "echo the reason; exit 3")

    def live_and_die() -> None:
        for now in range(0, 20, 5):
            assert until(lambda: not child.alive(), 5)
            it.look(now, lambda _: None)
            it.look(now + 4.5, lambda _: None)
        assert until(lambda: not child.alive(), 5)
        it.look(20, lambda _: None)

    with pytest.raises(Unavailable, match=r"(?s)it died 5 times in a minute.*the reason"):
        live_and_die()
    child.stop()
