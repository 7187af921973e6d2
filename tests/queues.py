"""A Celery application with the system's queues; results, which no test waits for, stay in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from clipwarden.shared.queue import celery_config
from clipwarden.shared.settings import Settings


@contextmanager
def celery_app(settings: Settings) -> Iterator[Celery]:
    app = Celery("tests", set_as_current=False)
    app.conf.update(celery_config(settings) | {"result_backend": "cache+memory://"})
    yield app
    app.close()
