"""The processes of a running system: the local supervisor starts them, docker-compose.yml repeats them."""

from dataclasses import dataclass

from clipwarden.shared.queue import Queue

GATEWAY = "gateway"
SWEEPER = "sweeper"
FLOWER = "flower"


@dataclass(frozen=True, slots=True)
class Process:
    """`words` follow `clipwarden` on the command line; `queue` is the one it consumes."""

    name: str
    words: tuple[str, ...]
    queue: Queue | None = None


SETUP: tuple[tuple[str, ...], ...] = (("db", "upgrade"), ("pipeline", "publish"))
"""Commands that run once, in this order, before the processes start. Running them again changes nothing."""

PROCESSES: tuple[Process, ...] = (
    Process(GATEWAY, ("serve",)),
    *(Process(queue.value, ("worker", queue.value), queue) for queue in Queue),
    Process(SWEEPER, ("sweep",)),
)

WATCHER = Process(FLOWER, ("flower",))
"""Shows operators what the workers do. No other process needs it."""
