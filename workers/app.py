"""The Celery application of the workers: configuration, logs, and what a pool process does when it starts."""

import signal
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, setup_logging, worker_process_init, worker_process_shutdown

from clipwarden.shared.errors import ClipwardenError, Unavailable, WorkerFault
from clipwarden.shared.logs import configure_logging, join_pool_logs, logger
from clipwarden.shared.queue import Queue, celery_config
from clipwarden.shared.settings import load_settings
from clipwarden.shared.tracing import start_tracing, stop_tracing
from clipwarden.workers.process import WorkerProcess

settings = load_settings()
log = logger(__name__)
app = Celery("clipwarden", include=["clipwarden.workers.tasks"])
app.conf.update(celery_config(settings))
celeryd_after_setup.connect(join_pool_logs)


@cache
def here() -> WorkerProcess:
    """The state of this process; the first call fixes it."""
    settings.need("redis_url", "database_url", "worker_queue")
    return WorkerProcess(settings, Queue(settings.worker_queue))


@setup_logging.connect
def _configure_logs(**_: Any) -> None:
    configure_logging(f"worker-{settings.worker_queue}", settings.log_level)


@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    configure_logging(f"worker-{settings.worker_queue}", settings.log_level)
    join_pool_logs()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    process = here()
    try:
        start_tracing(f"worker-{settings.worker_queue}")
        _patiently(process.warm, settings.worker_start_timeout_s / 2)
    except ClipwardenError as error:
        process.leave(error)
    except Exception as error:  # Celery drops what a signal handler raises; a worker without models must not consume
        log.exception("worker cannot start")
        process.leave(WorkerFault(f"could not start: {error!r}"))


def _patiently(do: Callable[[], None], patience_s: float) -> None:
    """Repeat while a service does not answer. Raises Unavailable when patience ends."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return do()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for a service", reason=str(error))
            time.sleep(1)


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    stop_tracing()
    process = here()
    if "fence" in vars(process):
        process.fence.close()
    process.store.close()
