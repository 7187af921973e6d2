"""Starting again what died, more slowly each time, and giving up when that does not help."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from clipwarden.shared.errors import ClipwardenError, Unavailable
from clipwarden.shared.local.child import Child, tail

MOST_DEATHS = 5
WITHIN_S = 60.0
FIRST_PAUSE_S = 0.5


class Server(Protocol):
    log: Path

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Deaths:
    """When to start something again: each death within a minute doubles the pause, the fifth is the last."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST_DEATHS)

    def pause_after(self, now: float) -> float | None:
        """Seconds to wait after a death at `now`, None to give up."""
        self._times.append(now)
        recent = sum(now - then < WITHIN_S for then in self._times)
        return None if recent >= MOST_DEATHS else FIRST_PAUSE_S * 2.0 ** (recent - 1)


class Watched:
    """A server or a process that has to run, and when it may be started again."""

    def __init__(self, name: str, what: Server | Child) -> None:
        self.name = name
        self.what = what
        self.deaths = Deaths()
        self.due: float | None = None

    def look(self, now: float, note: Callable[[str], None]) -> None:
        """Start it again if it died and its pause is over. Raises Unavailable when it has died too often."""
        if self.what.alive():
            return
        if self.due is None:
            pause = self.deaths.pause_after(now)
            if pause is None:
                log = self.what.log
                raise Unavailable(f"{self.name} died {MOST_DEATHS} times in a minute; {log} ends with:\n{tail(log)}")
            note(f"{self.name} died, starting it again in {pause:g} s")
            self.due = now + pause
        elif now >= self.due:
            self.due = None
            try:
                self.what.start()
            except ClipwardenError as error:
                note(f"{self.name} did not start: {error}")
