"""No process works on the schema of another version."""

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from clipwarden.api.gateway import Gateway
from clipwarden.shared import database
from clipwarden.shared.database import upgrade_schema
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.tables import SCHEMA
from clipwarden.workers import pipeline
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.sweep import Sweeper

STARTS: dict[str, Callable[[Settings], object]] = {
    "gateway": Gateway.open,
    "worker": lambda settings: WorkerProcess(settings, Queue.FUSION).warm(),
    "sweeper": Sweeper,
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
