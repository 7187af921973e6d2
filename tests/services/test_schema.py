"""No process works on the schema of another version."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from clipwarden.api.gateway import Gateway
from clipwarden.shared import database
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.database import tie_blob_store, upgrade_schema
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.shared.tables import SCHEMA
from clipwarden.workers import pipeline
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.sweep import Sweeper
from tests.services.test_worker_start import start

STARTS: dict[str, Callable[[Settings], object]] = {
    "gateway": Gateway.open,
    "worker": lambda settings: WorkerProcess(settings, Queue.FUSION).warm(),
    "sweeper": Sweeper,
    "db upgrade": lambda settings: tie_blob_store(Store(settings.database_url, 1), LocalBlobs(settings.blobs)),
}


def pretend(settings: Settings, version: str) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    engine.dispose()


@pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))
@pytest.mark.parametrize(
    ("version", "words"), [("9999", "newer than this version's"), ("0001", "run `clipwarden db upgrade`")]
)
def test_another_versions_schema_is_refused(
    settings: Settings, start: Callable[[Settings], object], version: str, words: str
) -> None:
    pretend(settings, version)
    with pytest.raises(ConfigError, match=words):
        start(settings)


def test_a_notify_worker_leaves_another_versions_schema_alone(settings: Settings) -> None:
    pretend(settings, "9999")
    ended = start("notify", settings)
    assert "worker leaves" in ended.stderr
    assert "newer than this version's" in ended.stderr


def test_what_runs_goes_on_while_a_newer_version_upgrades_the_schema(settings: Settings) -> None:
    gateway, worker = Gateway.open(settings), WorkerProcess(settings, Queue.FUSION)
    worker.warm()
    pretend(settings, "9999")
    assert asyncio.run(gateway.readiness()) == {"redis": True, "postgres": True, "blob_store": True}
    worker.blobs.check(worker.store.store_id())
    gateway.close()
    worker.store.close()


def test_a_newer_schema_is_neither_upgraded_nor_published_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(settings, "9999")
    monkeypatch.setenv("CLIPWARDEN_DATABASE_URL", settings.database_url)
    with pytest.raises(ConfigError, match="newer than this version's"):
        upgrade_schema(settings.database_url)
    with pytest.raises(ConfigError, match="newer than this version's"):
        pipeline.main(["publish"])


def test_the_schema_that_the_code_expects_is_the_last_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
