"""Hundreds of analyses while something is killed every few seconds."""

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from clipwarden.shared.local.child import until
from tests.drills.drill import Drill
from tests.drills.yard import Yard, send_signal

AT_ONCE = 24
CALM_S = (2.0, 6.0)
"""Between two faults: long enough for a killed worker to be back and do something."""
WORK_S = 0.05


class Chaos:
    """Does one of many things at random, by a seed, until it is told to stop."""

    def __init__(self, yard: Yard, seed: int) -> None:
        self.yard, self.done = yard, Counter[str]()
        self._random = random.Random(seed)

    def strike(self) -> None:
        what = self._random.choices(
            [self._process, self._pool_child, self._redis_emptied, self._redis_killed, self._postgres_killed],
            weights=[12, 5, 1, 1, 1],
        )[0]
        what()
        self.done[what.__name__.lstrip("_")] += 1

    def calm(self) -> float:
        return self._random.uniform(*CALM_S)

    def _process(self) -> None:
        name = self._random.choice(sorted(self.yard.members))
        if self.yard.members[name].child.alive():
            self.yard.kill(name)

    def _pool_child(self) -> None:
        name = self._random.choice([n for n in sorted(self.yard.members) if n not in {"gateway", "sweeper"}])
        if self.yard.members[name].child.alive():
            for pid in self.yard.pool_children(name)[:1]:
                send_signal(pid, signal.SIGKILL)

    def _redis_emptied(self) -> None:
        self.yard.redis.flushall()

    def _redis_killed(self) -> None:
        self.yard.kill_server(self.yard.valkey)
        if self._random.random() < 0.5:
            shutil.rmtree(self.yard.valkey.directory / "appendonlydir")
        self.yard.start_server(self.yard.valkey)

    def _postgres_killed(self) -> None:
        self.yard.kill_server(self.yard.postgres)
        self.yard.start_server(self.yard.postgres)


@contextmanager
def raging(chaos: Chaos) -> Iterator[None]:
    """Faults at random while the context lasts; in the end the servers are there. Raises what went wrong in it."""
    over, errors = threading.Event(), list[Exception]()

    def rage() -> None:
        try:
            while not over.wait(chaos.calm()):
                chaos.strike()
        except Exception as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=rage)
    with chaos.yard.leaving(*chaos.yard.members):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    assert errors == []


def storm(drill: Drill, count: int, seed: int) -> None:
    yard, chaos = drill.yard, Chaos(drill.yard, seed)
    yard.order(**{f"{who}__any": f"sleep {WORK_S}" for who in ("ingest", "visual", "audio", "lipsync", "clip")})
    with raging(chaos):
        while len(drill.expected) < count:
            try:
                drill.submit(end="")
            except httpx.HTTPError:  # the gateway is away, or what it needs: nothing was accepted
                time.sleep(0.2)
            assert until(lambda: drill.under_way() < AT_ONCE, 600)
    drill.healed()
    drill.assert_nothing_lost()
    ends = drill.ends()
    print(f"\n{count} analyses, {dict(chaos.done)}: {dict(ends)}")
    assert ends["done"] >= 0.99 * count


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_analyses_under_random_kills(drill: Drill) -> None:
    storm(drill, 200, seed=7)


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.skipif("CLIPWARDEN_DRILL_STORM" not in os.environ, reason="takes minutes of a machine to itself")
def test_a_thousand_analyses_under_random_kills(drill: Drill) -> None:
    storm(drill, 1000, seed=11)
