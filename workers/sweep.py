"""`clipwarden sweep`: the safety net. Re-sends what was lost, ends what is overdue, fuses what was forgotten, and has
what is past its time deleted (`retention`). A plain process that lives when Redis does not; two at once take turns.
"""

import argparse
import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from logging import DEBUG, INFO, WARNING
from uuid import UUID

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.shared.blobs import open_blobs
from clipwarden.shared.contracts import Lane, Stage
from clipwarden.shared.errors import ElsewherePlease, Unavailable
from clipwarden.shared.exposing import expose
from clipwarden.shared.logs import configure_logging, log_context, logger
from clipwarden.shared.metrics import LAST_SWEEP, SWEEP_SECONDS, SWEEPER, SWEEPER_ACTIONS
from clipwarden.shared.queue import (
    PRIORITIES,
    ROUTES,
    SENTINEL_KEY,
    Queue,
    Task,
    celery_config,
    redis_keys,
    stage_task,
)
from clipwarden.shared.settings import Settings, load_settings
from clipwarden.shared.store import Store
from clipwarden.shared.tracing import start_tracing, stop_tracing
from clipwarden.workers.census import Counting
from clipwarden.workers.fusing import fuse_analysis
from clipwarden.workers.overdue import end_overdue
from clipwarden.workers.retention import Caretaker

UNFUSED_AGE_S = 2.0
"""How long the chord's body is given to fuse before the sweeper does."""

log = logger(__name__)


class Sweeper:
    """One sweep after the other. Holds no state that matters: everything it knows is in Postgres and Redis.

    With `dry_run` it finds and counts the same things, and changes nothing: what follows from a change is not counted.
    """

    def __init__(self, settings: Settings, *, dry_run: bool = False) -> None:
        self._settings, self._dry_run = settings, dry_run
        connections = 2  # one for the lock, one for the work
        self._store = Store(settings.database_url, connections, name=f"sweeper:{os.getpid()}", dry_run=dry_run)
        self._blobs = open_blobs(settings)
        self._fusion: tuple[FusionBundle, str] = read_bundle(bundle_path())
        self._redis = Redis.from_url(settings.redis_url, socket_timeout=3, socket_connect_timeout=3)
        self._celery = Celery("clipwarden-sweeper", set_as_current=False)
        self._celery.conf.update(celery_config(settings))
        self._store.check_schema()
        self._blobs.check(self._store.store_id())
        self._caretaker = Caretaker(settings, self._store, self._blobs, dry_run=dry_run)

    def sweep(self) -> Counter[str] | None:
        """One round; counts what was done by kind. None if another sweeper is at work.

        Raises Unavailable if Postgres does not answer.
        """
        done: Counter[str] = Counter()
        with nullcontext(True) if self._dry_run else self._store.sweeping() as mine:
            if not mine:
                return None
            done.update(ended.code.value for ended in end_overdue(self._settings, self._store))
            done["released"] += self._store.release_stranded()
            self._fuse_forgotten(done)
            self._resend(done)
            self._resend_deliveries(done)
            self._clean_up(done)
        return done

    def _fuse_forgotten(self, done: Counter[str]) -> None:
        unfused = self._store.unfused(UNFUSED_AGE_S)
        if self._dry_run:
            done["fused"] += len(unfused)
            return
        for analysis_id in unfused:
            with log_context(analysis_id=str(analysis_id)):
                try:
                    done["fused"] += fuse_analysis(self._store, self._blobs, self._fusion, analysis_id)
                except ElsewherePlease as error:
                    log.info("left to the fusion worker of another version", reason=str(error))
                except Unavailable:
                    raise
                except Exception:  # one analysis must not stop the sweep; its deadline ends it
                    log.exception("cannot be fused")
                    done["unfusable"] += 1

    def _resend(self, done: Counter[str]) -> None:
        """Send open rows that are due; all of them if the broker was emptied."""
        try:
            emptied = self._redis.get(SENTINEL_KEY) is None
            crowded = set() if emptied else self._crowded()
            for due in self._store.due(emptied, crowded):
                self._send(stage_task(due.stage), due.analysis_id, due.lane)
                log.info("sent", analysis_id=str(due.analysis_id), stage=due.stage, sends=due.sends + 1)
                done["sent"] += 1
                self._store.mark_sent(due.analysis_id, [due.stage], self._settings.resend_after_s)
            if emptied and not self._dry_run:
                self._redis.set(SENTINEL_KEY, "present")
                log.log(WARNING if done["sent"] else INFO, "broker was empty, all open stages sent", sent=done["sent"])
        except (RedisError, KombuError, CeleryError, OSError) as error:
            log.warning("Redis does not answer, nothing sent", reason=str(error))

    def _resend_deliveries(self, done: Counter[str]) -> None:
        """Send callbacks that are due, unless as many messages wait already."""
        due = self._store.due_deliveries()
        try:
            if int(self._redis.llen(Queue.NOTIFY)) >= len(due):
                return
            for delivery_id in due if not self._dry_run else ():
                self._celery.send_task(Task.NOTIFY.value, args=[str(delivery_id)], ignore_result=True)
            done["callbacks_sent"] += len(due)
        except (RedisError, KombuError, CeleryError, OSError) as error:
            log.warning("Redis does not answer, no callback sent", reason=str(error))

    def _clean_up(self, done: Counter[str]) -> None:
        """Delete what is past its time. What else was done counts, though the blob store be away."""
        try:
            self._caretaker.turn(done)
        except Unavailable as error:
            log.warning("the rest is not deleted", reason=str(error))

    def _crowded(self) -> set[Stage]:
        """Stages whose queue holds at least as many messages as there are open rows: none of those was lost."""
        counts: Counter[Queue] = Counter()
        for stage, n in self._store.open_counts().items():
            counts[ROUTES[stage_task(stage)]] += n
        full = {queue for queue, n in counts.items() if self._waiting(queue) >= n}
        return {stage for stage in Stage if ROUTES[stage_task(stage)] in full}

    def _waiting(self, queue: Queue) -> int:
        """Messages of all lanes."""
        return sum(int(self._redis.llen(key)) for key in redis_keys(queue))

    def _send(self, task: Task, analysis_id: UUID, lane: Lane) -> None:
        if self._dry_run:
            return
        aid, priority = str(analysis_id), PRIORITIES[lane]
        link = None
        if task not in {Task.FETCH, Task.INGEST}:  # a branch sent alone is nobody's header, so it brings its own body
            link = self._celery.signature(Task.FUSE.value, args=[aid], immutable=True, priority=priority)
        self._celery.send_task(task.value, args=[aid], link=link, ignore_result=True, priority=priority)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden sweep", description=__doc__)
    parser.add_argument(
        "--every", type=_seconds, help="pause between two sweeps, such as 10s (default: CLIPWARDEN_SWEEP_EVERY_S)"
    )
    parser.add_argument("--once", action="store_true", help="sweep once and say what was done")
    parser.add_argument("--dry-run", action="store_true", help="say what a sweep would do now, and change nothing")
    arguments = parser.parse_args(argv)
    settings = load_settings()
    settings.need("redis_url", "database_url")
    configure_logging("sweeper", settings.log_level)
    if arguments.dry_run:
        return _rehearse(settings)
    pause_s = arguments.every or settings.sweep_every_s
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    expose(settings, SWEEPER)
    start_tracing("sweeper")
    sweeper, counting = Sweeper(settings), Counting(settings)
    while not stop.is_set():
        try:
            done = sweep_and_count(sweeper, counting)
            if done is None:
                log.log(INFO if arguments.once else DEBUG, "another sweeper is at work")
            elif done or arguments.once:
                log.info("swept", **done)
        except Unavailable as error:
            log.warning("sweep skipped", reason=str(error))
        if arguments.once:
            break
        stop.wait(pause_s)
    stop_tracing()
    return 0


def sweep_and_count(sweeper: Sweeper, counting: Counting) -> Counter[str] | None:
    """One round, told in metrics. Only a sweep that was this sweeper's says that sweeping goes on."""
    with SWEEP_SECONDS.time():
        done = sweeper.sweep()
    for action, times in (+done).items() if done else ():
        SWEEPER_ACTIONS.labels(action).inc(times)
    counting.count()
    if done is None:
        return None
    LAST_SWEEP.set_to_current_time()
    return +done


def _seconds(text: str) -> float:
    seconds = float(text.removesuffix("s"))
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _rehearse(settings: Settings) -> int:
    with log_context(dry_run="yes"):
        done = +(Sweeper(settings, dry_run=True).sweep() or Counter())
    for what, times in sorted(done.items()):
        print(f"{what} {times}")
    print("nothing was changed" if done else "there is nothing to do")
    return 0
