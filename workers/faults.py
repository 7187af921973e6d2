"""What a worker's pool process does about faults: of a service, it waits; its own, it leaves. Imports no models."""

import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from clipwarden.shared.errors import ClipwardenError, Unavailable, WorkerFault
from clipwarden.shared.logs import logger

FAULT_EXIT = 70
RETRY_AFTER_FAULT_S = 5.0
"""How long a message rests that could not be worked on."""

log = logger(__name__)


def start_or_leave(start: Callable[[], None], patience_s: float) -> None:
    """Start a pool process; while a service does not answer, again and again, until patience ends.

    Celery drops what a signal handler raises, and a worker that has not started must not consume: so it leaves.
    """
    try:
        _patiently(start, patience_s)
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
