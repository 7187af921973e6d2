"""The connection to Postgres, and the one place where its errors become ours."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from clipwarden.shared.errors import ConfigError, Unavailable

IDLE_S: Final = 1.0
"""A connection that was used this recently is not tried before it is used again."""
NOTICE_SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""So that a server that vanished without a word is an error within half a minute, not a hang."""


def driver_url(database_url: str) -> str:
    """The URL as SQLAlchemy wants it, which names the driver too."""
    return database_url.replace("postgresql://", "postgresql+psycopg2://", 1)


class Database:
    """A pool of connections. `pool_size` is 1 in a worker process: its heartbeat shares the one connection.

    `name` is what Postgres lists the connections under. With `dry_run` every transaction does its work and is undone.
    """

    def __init__(self, database_url: str, pool_size: int = 5, *, name: str = "", dry_run: bool = False) -> None:
        self._dry_run = dry_run
        try:
            self._engine = create_engine(
                driver_url(database_url),
                pool_size=pool_size,
                max_overflow=0,
                pool_timeout=10,
                connect_args={
                    "connect_timeout": 3,
                    "fallback_application_name": name or f"clipwarden:{os.getpid()}",
                    **NOTICE_SILENCE,
                },
            )
        except Exception as error:  # SQLAlchemy raises several unrelated kinds for a bad URL
            raise ConfigError(f"CLIPWARDEN_DATABASE_URL is not a PostgreSQL URL: {error}") from error
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        _try_idle_connections(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._connection(self._engine) as connection, connection.begin() as transaction:
            yield connection
            if self._dry_run:
                transaction.rollback()

    @contextmanager
    def _statement(self) -> Iterator[Connection]:
        """For a single statement, which is a transaction by itself: one round trip instead of three."""
        if self._dry_run:
            with self._transaction() as connection:
                yield connection
        else:
            with self._connection(self._autocommit) as connection:
                yield connection

    @contextmanager
    def _connection(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.connect() as connection:
                yield connection
        except ProgrammingError as error:
            if "does not exist" in str(error.orig):
                raise ConfigError(
                    f"the database schema is not this version's: run `clipwarden db upgrade` ({error.orig})"
                ) from error
            raise
        except PoolTimeout as error:
            raise Unavailable(f"no database connection is free: {error}") from error
        except DBAPIError as error:
            if error.connection_invalidated or type(error).__name__ in {"OperationalError", "InterfaceError"}:
                raise Unavailable(f"Postgres did not answer: {error.orig}") from error
            raise

    def ping(self) -> None:
        """Raises Unavailable if Postgres does not answer."""
        with self._statement() as c:
            c.execute(text("SELECT 1"))


def _try_idle_connections(engine: Engine) -> None:
    """Replace connections that were lost while nobody used them, and with one of them all."""

    @event.listens_for(engine, "checkin")
    def note(_: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error
