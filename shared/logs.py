"""JSON logs on stderr, one object a line; the analysis and the branch are bound once and stand in every line."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, WrappedLogger

NOISY = ("celery.redirected", "kombu", "amqp", "httpx", "httpcore", "alembic.runtime.plugins")


def configure_logging(service: str, level: str = "INFO") -> None:
    """Send every logger of the process, ours and the libraries', through one JSON formatter."""

    def name_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in NOISY:
        logging.getLogger(name).setLevel("WARNING")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def join_pool_logs(**_: object) -> None:
    """Have what Celery's process pool says of its processes go where everything else goes."""
    from billiard.util import get_logger

    os.environ["_MP_FORK_LOGLEVEL_"] = ""  # asks a fresh pool process to print what happens before it is set up
    pool = get_logger()
    pool.handlers.clear()
    pool.propagate = True


def logger(name: str) -> structlog.stdlib.BoundLogger:
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


@contextmanager
def log_context(**facts: str) -> Iterator[None]:
    """Bind facts (analysis_id, branch, ...) to every line logged inside, in this thread or task."""
    with structlog.contextvars.bound_contextvars(**facts):
        yield
