"""Owning a stage while working on it: claim, heartbeat, and what each way of ending means for the message."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from celery import Task as CeleryTask

from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import ConfigError, ElsewherePlease, StorageFull, StorageSick, Unavailable, WorkerFault
from clipwarden.shared.logs import log_context, logger
from clipwarden.shared.store import Busy, Claim, Granted, Settled, Store
from clipwarden.workers.faults import leave, retry_after_s
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.telemetry import told, told_elsewhere

log = logger(__name__)


class Heartbeat:
    """Extends a lease from a thread until the work ends, the lease is lost, or the stage's time limit is reached."""

    def __init__(
        self,
        store: Store,
        analysis_id: UUID,
        stage: Stage,
        token: UUID,
        lease_s: float,
        every_s: float,
        limit_s: float,
    ) -> None:
        self._beat: Callable[[], bool] = lambda: store.extend(analysis_id, stage, token, lease_s)
        self._every_s, self._beats = every_s, int(limit_s / every_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="heartbeat", daemon=True)

    def _run(self) -> None:
        for _ in range(self._beats):
            if self._stop.wait(self._every_s):
                return
            try:
                if not self._beat():
                    return
            except Unavailable as error:  # the lease outlives a few missed beats
                log.warning("heartbeat missed", reason=str(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def with_lease(
    task: CeleryTask,
    process: WorkerProcess,
    analysis_id: UUID,
    stage: Stage,
    limit_s: float,
    do: Callable[[Granted], Any],
) -> None:
    """Run `do` as the owner of the stage.

    A settled stage: return, the message is done. A live lease elsewhere: retry later, never return, because a return
    counts as a finished header of the chord. A service that does not answer: retry. This worker's fault: leave; where
    no clip can have caused it, as when the blob store is lost, the attempt does not count.
    """
    s = process.settings
    with log_context(analysis_id=str(analysis_id), stage=stage.value):
        match _claim(task, process, analysis_id, stage):
            case Settled(code=code):
                if code:
                    log.warning("ended", code=code, attempts=s.max_attempts)
                return
            case Busy(seconds=seconds):
                raise task.retry(countdown=seconds + 0.2)
            case Granted() as granted:
                log.info("stage claimed", attempt=granted.attempts)
        try:
            with (
                Heartbeat(process.store, analysis_id, stage, granted.token, s.lease_s, s.heartbeat_s, limit_s),
                told(analysis_id, stage, granted.attempts, process.name),
            ):
                do(granted)
        except WorkerFault as fault:
            leave(fault)
        except (ConfigError, Unavailable, ElsewherePlease) as error:
            pause_s = _given_back(task, process, analysis_id, stage, granted, error)
            raise task.retry(exc=error, countdown=pause_s) from error
        if process.lacking:
            process.look_again()


def _given_back(
    task: CeleryTask,
    process: WorkerProcess,
    analysis_id: UUID,
    stage: Stage,
    granted: Granted,
    error: ConfigError | Unavailable | ElsewherePlease,
) -> float:
    """Hand the stage back, and leave if no other could be worked on here; returns how long the message rests."""
    log.warning("stage handed back", reason=str(error))
    useless = isinstance(error, ConfigError) or (isinstance(error, StorageSick) and not process.blobs.works())
    vain = isinstance(error, (StorageFull, StorageSick))  # as the next attempt may be, and costly
    pause_s = retry_after_s(task.request.retries if vain else 0)
    _hand_back(process.store, analysis_id, stage, granted.token, 0.0 if useless else pause_s)
    if useless:
        leave(error)
    if isinstance(error, ElsewherePlease):
        process.look_again()
    return pause_s


def _claim(task: CeleryTask, process: WorkerProcess, analysis_id: UUID, stage: Stage) -> Claim:
    s = process.settings
    try:
        return process.store.claim(analysis_id, stage, s.lease_s, s.max_attempts, process.name)
    except (Unavailable, ElsewherePlease) as error:
        if isinstance(error, ElsewherePlease):
            told_elsewhere(stage, error)
            process.look_again()
        raise task.retry(exc=error, countdown=retry_after_s()) from error


def _hand_back(store: Store, analysis_id: UUID, stage: Stage, token: UUID, pause_s: float = 0.0) -> None:
    try:
        store.hand_back(analysis_id, stage, token, pause_s)
    except Unavailable as error:  # then the lease runs out by itself
        log.warning("stage could not be handed back", reason=str(error))
