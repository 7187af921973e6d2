"""News of analyses: one LISTEN for a gateway process, told to all who wait for it.

Postgres names each analysis that a stage or the state of changed. News may be lost while the connection is; so
whoever waits is told to look again after each reconnection.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from select import POLLIN, poll
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection

from clipwarden.shared.logs import logger
from clipwarden.shared.store.connection import NOTICE_SILENCE
from clipwarden.shared.tables import CHANGES

LOOK_S: Final = 1.0
"""How often the thread sees whether it is to end."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0

Read = TypeVar("Read")

log = logger(__name__)


@dataclass
class _Watched:
    """Those who wait for one analysis, and what one of them has read of it since its last change."""

    waiting: set[asyncio.Event] = field(default_factory=set)
    reading: asyncio.Future[Any] | None = None


class Changes:
    """Wakes those who wait for an analysis, in the event loop that `start` was called in."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url.replace("postgresql+psycopg2://", "postgresql://", 1)  # the driver is not libpq's word
        self._watched: dict[UUID, _Watched] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        self._ended.set()
        await asyncio.to_thread(self._thread.join)

    @contextmanager
    def of(self, analysis_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set at each change; who waits clears it before looking."""
        news = asyncio.Event()
        watched = self._watched.setdefault(analysis_id, _Watched())
        watched.waiting.add(news)
        watched.reading = None  # news of before may have been lost
        try:
            yield news
        finally:
            watched.waiting.discard(news)
            if not watched.waiting:
                del self._watched[analysis_id]

    async def shared(self, analysis_id: UUID, read: Callable[[], Awaitable[Read]]) -> Read:
        """What `read` returns of an analysis that the caller waits for, once after each change for all who do."""
        watched = self._watched[analysis_id]
        reading: asyncio.Future[Read] | None = watched.reading
        if reading is None or (reading.done() and reading.exception()):
            reading = watched.reading = asyncio.ensure_future(read())
        return await asyncio.shield(reading)

    def _wake(self, analysis_id: UUID | None) -> None:
        """Tell those who wait for one analysis, or for any."""
        if analysis_id is None:
            told = list(self._watched.values())
        else:
            told = [self._watched[analysis_id]] if analysis_id in self._watched else []
        for watched in told:
            watched.reading = None
            for news in watched.waiting:
                news.set()

    def _tell(self, analysis_id: UUID | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake, analysis_id)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ended.is_set():
            try:
                link = psycopg2.connect(self._url, connect_timeout=3, **NOTICE_SILENCE)
                pause_s = FIRST_PAUSE_S
                try:
                    self._listen(link)
                finally:
                    link.close()
            except psycopg2.Error as error:
                log.warning("not listening for changes", reason=str(error).strip())
                self._ended.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _listen(self, link: connection) -> None:
        link.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with link.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANGES}")
        self._tell(None)
        arrivals = poll()
        arrivals.register(link, POLLIN)
        while not self._ended.is_set():
            if not arrivals.poll(1000 * LOOK_S):
                continue
            link.poll()
            named = {notice.payload for notice in link.notifies}
            link.notifies.clear()
            for payload in named:
                self._tell(UUID(payload))
