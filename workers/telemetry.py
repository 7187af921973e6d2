"""What a worker tells of its work: how long it held a stage and how it let go of it, in metrics and in the trace."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from clipwarden.shared.errors import ConfigError, ElsewherePlease, Unavailable, WorkerFault
from clipwarden.shared.exposing import say_handed_back
from clipwarden.shared.metrics import TASK_SECONDS
from clipwarden.shared.tracing import span


@contextmanager
def told(analysis_id: UUID, stage: str, attempt: int, worker: str) -> Iterator[None]:
    """Time the work on a stage, or with "fuse" on the verdict.

    Its end is settled, elsewhere (another pipeline's), handed_back, left or failed.
    """
    started, end = time.perf_counter(), "failed"
    try:
        with span(stage, analysis_id, attempt=attempt, worker=worker):
            yield
        end = "settled"
    except ElsewherePlease as error:
        end = "elsewhere"
        say_handed_back(str(error))
        raise
    except Unavailable:
        end = "handed_back"
        raise
    except (WorkerFault, ConfigError):
        end = "left"
        raise
    finally:
        TASK_SECONDS.labels(stage, end).observe(time.perf_counter() - started)


def told_elsewhere(stage: str, error: ElsewherePlease) -> None:
    """Tell of work that only another worker can do, and that this one did not even begin."""
    say_handed_back(str(error))
    TASK_SECONDS.labels(stage, "elsewhere").observe(0)
