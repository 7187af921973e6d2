"""What a worker's pool process does about faults: of a service, it waits; its own, it leaves. Imports no models."""

import os
import random
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from clipwarden.shared.errors import ClipwardenError, Unavailable, WorkerFault
from clipwarden.shared.logs import configure_logging, join_pool_logs, logger
from clipwarden.shared.settings import Settings
from clipwarden.shared.tracing import start_tracing

FAULT_EXIT = 70
RETRY_AFTER_FAULT_S = 5.0
LONGEST_RETRY_S = 300.0
JITTER = 0.6
STARTED_WITH = "CLIPWARDEN_WORKER_STARTED_WITH"
"""The variable by which a pool process knows which detectors its parent found when it started."""

log = logger(__name__)


def retry_after_s(retries: int = 0) -> float:
    """How long a message rests that could not be worked on, twice as long with each retry that counts.

    It is never the same twice: a message that comes at a fixed pace falls in step with the workers' polling, and one of
    them gets it every time, even if that is the one that cannot work on it.
    """
    return min(RETRY_AFTER_FAULT_S * 2.0 ** min(retries, 10), LONGEST_RETRY_S) * random.uniform(1 - JITTER, 1 + JITTER)


def start_or_leave(settings: Settings, queue: str, start: Callable[[], None]) -> None:
    """Start a pool process; while a service does not answer, again and again, until patience ends.

    Celery drops what a signal handler raises, and a worker that has not started must not consume: so it leaves.
    """
    service = f"worker-{queue}"
    configure_logging(service, settings.log_level)
    join_pool_logs()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        start_tracing(service)
        _patiently(start, settings.worker_start_timeout_s / 2)
    except ClipwardenError as error:
        leave(error)
    except Exception as error:
        log.exception("worker cannot start")
        leave(WorkerFault(f"could not start: {error!r}"))


def _patiently(start: Callable[[], None], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return start()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for a service", reason=str(error))
            time.sleep(1)


def leave(reason: ClipwardenError) -> NoReturn:
    """End this worker, pool child and parent: it is this worker's fault, so another must do the work.

    Nothing is recorded; the lease of the running stage runs out and the stage is tried elsewhere.
    """
    log.critical("worker leaves", reason=str(reason), code=reason.code)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(0.5)  # lets the parent stop consuming before it notices a lost child and starts another
    os._exit(FAULT_EXIT)
