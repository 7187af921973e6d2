"""The Celery application of the workers: configuration, logs, and what a pool process does when it starts."""

from functools import cache
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, setup_logging, worker_process_init, worker_process_shutdown

from clipwarden.shared.logs import configure_logging, join_pool_logs
from clipwarden.shared.queue import Queue, celery_config
from clipwarden.shared.settings import load_settings
from clipwarden.shared.tracing import stop_tracing
from clipwarden.workers.faults import start_or_leave
from clipwarden.workers.process import WorkerProcess

settings = load_settings()
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
    start_or_leave(settings, settings.worker_queue, lambda: here().warm())


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    stop_tracing()
    process = here()
    if "fence" in vars(process):
        process.fence.close()
    process.store.close()
