"""News of analyses: one LISTEN for a gateway process, told to all who wait for it.

Postgres names each analysis that a stage or the state of changed. News may be lost while the connection is; so
whoever waits is told to look again after each reconnection.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import POLLIN, poll
from typing import Final
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

log = logger(__name__)


class Changes:
    """Wakes those who wait for an analysis, in the event loop that `start` was called in."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url.replace("postgresql+psycopg2://", "postgresql://", 1)  # the driver is not libpq's word
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
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
        self._waiting.setdefault(analysis_id, set()).add(news)
        try:
            yield news
        finally:
            others = self._waiting[analysis_id]
            others.discard(news)
            if not others:
                del self._waiting[analysis_id]

    def _wake(self, analysis_id: UUID | None) -> None:
        """Tell those who wait for one analysis, or for any."""
        sets = list(self._waiting.values()) if analysis_id is None else [self._waiting.get(analysis_id, set())]
        for news in (each for waiting in sets for each in waiting):
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
