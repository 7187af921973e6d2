"""The Celery application of the processes that make callbacks. It is one of its own, and loads no models."""

import os
import socket
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery
from celery import Task as CeleryTask
from celery.signals import celeryd_after_setup, setup_logging, worker_process_init, worker_process_shutdown

from clipwarden.shared.addresses import Rules
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.exposing import say_ready
from clipwarden.shared.logs import configure_logging, join_pool_logs, log_context, logger
from clipwarden.shared.outbound import Outbound
from clipwarden.shared.queue import Queue, Task, celery_config
from clipwarden.shared.settings import load_settings
from clipwarden.shared.store import Store
from clipwarden.shared.tracing import stop_tracing
from clipwarden.workers.faults import retry_after_s, start_or_leave
from clipwarden.workers.notify import Notifier

log = logger(__name__)
settings = load_settings()
app = Celery("clipwarden", set_as_current=False)
app.conf.update(celery_config(settings))
celeryd_after_setup.connect(join_pool_logs)


@cache
def here() -> Notifier:
    """The state of this process."""
    settings.need("redis_url", "database_url")
    name = f"{Queue.NOTIFY}@{socket.gethostname()}:{os.getpid()}"
    return Notifier(settings, Store(settings.database_url, pool_size=1, name=name), Outbound(Rules.of(settings)))


@setup_logging.connect
def _configure_logs(**_: Any) -> None:
    configure_logging(f"worker-{Queue.NOTIFY}", settings.log_level)


@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    start_or_leave(settings, Queue.NOTIFY, _start)


def _start() -> None:
    here().store.check_schema()
    say_ready()
    log.info("worker ready", queue=Queue.NOTIFY)


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    stop_tracing()
    here().store.close()


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=None, ignore_result=True)
def run_notify(self: CeleryTask, delivery_id: str) -> None:
    with log_context(delivery_id=delivery_id):
        try:
            here().deliver(UUID(delivery_id))
        except Unavailable as error:
            raise self.retry(exc=error, countdown=retry_after_s()) from error
