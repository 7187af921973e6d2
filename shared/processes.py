"""The processes of a running system: the local supervisor starts them, docker-compose.yml repeats them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from clipwarden.shared.queue import Queue

GATEWAY = "gateway"
SWEEPER = "sweeper"
SOFT_STOP: Mapping[str, str] = MappingProxyType({"REMAP_SIGTERM": "SIGQUIT"})
"""Makes a Celery worker hand its unfinished task back on SIGTERM, not finish it first."""


@dataclass(frozen=True, slots=True)
class Process:
    """`words` follow `clipwarden` on the command line; `queue` is the one it consumes; `env` is its own."""

    name: str
    words: tuple[str, ...]
    queue: Queue | None = None
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


SETUP: tuple[tuple[str, ...], ...] = (("db", "upgrade"), ("pipeline", "publish"))
"""Commands that run once, in this order, before the processes start. Running them again changes nothing."""

PROCESSES: tuple[Process, ...] = (
    Process(GATEWAY, ("serve",)),
    *(Process(queue.value, ("worker", queue.value), queue, SOFT_STOP) for queue in Queue),
    Process(SWEEPER, ("sweep",)),
)
