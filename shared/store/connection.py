"""The connection to Postgres, and the one place where its errors become ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import sqlalchemy
from sqlalchemy import Connection, TextClause, create_engine
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from clipwarden.shared.errors import ConfigError, Unavailable

NOTICE_SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""So that a server that vanished without a word is an error within half a minute, not a hang."""


@cache
def text(statement: str) -> TextClause:
    """A statement of ours, looked through for its parameters once: for a long one that takes as long as to run it."""
    return sqlalchemy.text(statement)


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
                pool_pre_ping=True,
                pool_timeout=10,
                connect_args={
                    "connect_timeout": 3,
                    "fallback_application_name": name or f"clipwarden:{os.getpid()}",
                    **NOTICE_SILENCE,
                },
            )
        except Exception as error:  # SQLAlchemy raises several unrelated kinds for a bad URL
            raise ConfigError(f"CLIPWARDEN_DATABASE_URL is not a PostgreSQL URL: {error}") from error

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                yield connection
                if self._dry_run:
                    transaction.rollback()
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
        with self._transaction() as c:
            c.execute(text("SELECT 1"))
