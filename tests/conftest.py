"""One real Postgres and one real Redis-protocol server for the whole session; a fresh database for each test."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from redis import Redis
from sqlalchemy import create_engine, text
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.database import tie_blob_store, upgrade_schema
from clipwarden.shared.ids import new_id
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store

pytest_plugins = ["tests.browsers", "tests.media_fixtures", "tests.s3_fixtures"]
TEMPLATE = "clipwarden_template"

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Weights that whoever runs the tests has installed are not under test, here or in a child process."""
    cache = tempfile.mkdtemp(prefix="clipwarden-tests-")
    config.add_cleanup(partial(shutil.rmtree, cache))
    os.environ["XDG_CACHE_HOME"] = cache


class BySystem(LoadFileScheduling):
    """One process has all tests of a file, and one all that break a running system, or use one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in {"tests/drills", "tests/e2e"} else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> BySystem:
    """Marks cannot do this: the groups that they name do not reach xdist's scheduler."""
    return BySystem(config, log)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """The encoder of AV1 makes a process that root runs a real-time one, and two of those starve each other."""
    yield
    if sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def server_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_dir)
    server.start()
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):  # no test outlives the machine
        _administer(server.url, statement)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(server_dir)
    server.start()
    yield server
    server.stop()


def _in_database(url: str, database: str) -> str:
    before, _, query = url.partition("?")
    return f"{before.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")


def _administer(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """A database with the schema, to be copied."""
    _administer(postgres.url, f"CREATE DATABASE {TEMPLATE}")
    upgrade_schema(_in_database(postgres.url, TEMPLATE))
    return TEMPLATE


@pytest.fixture
def postgres_url(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"t{new_id().hex}"
    _administer(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _in_database(postgres.url, name)
    _administer(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> Iterator[str]:
    yield valkey.url
    with Redis.from_url(valkey.url) as client:
        client.flushall()


@pytest.fixture
def settings(postgres_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a set-up installation: schema, blob store, no pipeline yet."""
    made = Settings(database_url=postgres_url, redis_url=redis_url, state_dir=tmp_path, blob_dir=tmp_path / "blobs")
    store = Store(postgres_url, pool_size=1)
    tie_blob_store(store, LocalBlobs(made.blobs))
    store.close()
    return made


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store(settings.database_url)
    yield opened
    opened.close()
