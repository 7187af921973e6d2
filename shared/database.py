"""`clipwarden db`: creates and upgrades the schema, and ties the database to its blob store."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import BlobStore, open_blobs
from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.ids import new_id
from clipwarden.shared.settings import Settings, load_settings
from clipwarden.shared.store import Store
from clipwarden.shared.store.connection import driver_url
from clipwarden.shared.store.intake import check_revision
from clipwarden.shared.tables import SCHEMA

MIGRATION_LOCK = 727462


def upgrade_schema(database_url: str) -> None:
    """Bring the schema to this version; two at once wait for each other. Raises Unavailable or ConfigError."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    engine = create_engine(driver_url(database_url), connect_args={"connect_timeout": 5})
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            found = MigrationContext.configure(connection).get_current_revision()
            if found is not None and found > SCHEMA:
                check_revision(found)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except ConfigError:
        raise
    except Exception as error:
        kind = Unavailable if type(error).__name__ == "OperationalError" else ConfigError
        raise kind(f"the database could not be upgraded: {error}") from error
    finally:
        engine.dispose()


def tie_blob_store(store: Store, blobs: BlobStore, new_blob_store: bool = False) -> str:
    """Give the database and the blob store one id; returns it.

    A database that knows a store refuses an empty one, which may be a volume that was not mounted or a wrong prefix,
    unless `new_blob_store` says that it is meant.
    """
    store.check_schema()
    known, found = store.store_id(), blobs.store_id()
    if known is not None and found is None and not new_blob_store:
        raise ConfigError(
            f"{blobs.place} is empty but this database already has a blob store: {blobs.remedy}, or run"
            " `clipwarden db upgrade --new-blob-store` to go on without the old files"
        )
    store_id = found or known or str(new_id())
    if found is None:
        blobs.set_up(store_id)
    if known is None:
        store.set_store_id(store_id)
    blobs.check(store.store_id())
    return store_id


def upgrade(settings: Settings, new_blob_store: bool = False) -> str:
    """Schema and blob store ready for use; returns the store id."""
    settings.need("database_url")
    upgrade_schema(settings.database_url)
    store = Store(settings.database_url, pool_size=1)
    try:
        return tie_blob_store(store, open_blobs(settings), new_blob_store)
    finally:
        store.close()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden db", description=__doc__)
    parser.add_argument("action", choices=["upgrade"])
    parser.add_argument(
        "--new-blob-store", action="store_true", help="accept an empty blob store for a database that had one"
    )
    arguments = parser.parse_args(argv)
    settings = load_settings()
    store_id = upgrade(settings, arguments.new_blob_store)
    print(f"database ready, blob store {store_id} in {settings.blob_url or settings.blobs}")
    return 0
