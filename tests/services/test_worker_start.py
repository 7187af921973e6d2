"""A worker that cannot do its work leaves, and says why, instead of taking messages."""

import os
import subprocess
import sys
from pathlib import Path

from clipwarden.shared.settings import Settings

WORKER = [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())", "worker"]


def start(queue: str, settings: Settings, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CLIPWARDEN_DATABASE_URL": settings.database_url,
        "CLIPWARDEN_REDIS_URL": settings.redis_url,
        "CLIPWARDEN_BLOB_DIR": str(settings.blobs),
        **changes,
    }
    return subprocess.run(
        [*WORKER, queue], env=environment, capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )


def test_with_the_wrong_blob_store_it_leaves(settings: Settings, tmp_path: Path) -> None:
    ended = start("fusion", settings, CLIPWARDEN_BLOB_DIR=str(tmp_path / "elsewhere"))
    assert "worker leaves" in ended.stderr
    assert "is not the blob store of this database" in ended.stderr


def test_with_a_device_that_is_not_there_it_leaves(settings: Settings) -> None:
    ended = start("audio", settings, CLIPWARDEN_DEVICE="cuda:99")
    assert "worker leaves" in ended.stderr
    assert "could not start" in ended.stderr


def test_a_missing_setting_is_named(settings: Settings) -> None:
    ended = start("fusion", settings, CLIPWARDEN_DATABASE_URL="")
    assert ended.returncode == 2
    assert "CLIPWARDEN_DATABASE_URL is not set" in ended.stderr
