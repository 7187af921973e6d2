"""Queue position and estimate of a real queue, worked off at a known pace."""

from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import create_engine, text

from clipwarden.api import waiting
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.analyses import finish


@pytest.fixture(autouse=True)
def looked_up_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FRESH_S", 0.0)


def submit(gateway: httpx.Client, clip_file: Path) -> UUID:
    """Other bytes each time: the same ones would share a run."""
    files = {"file": ("a.mp4", clip_file.read_bytes() + uuid4().bytes)}
    return UUID(gateway.post("/v1/analyses", files=files).raise_for_status().json()["id"])


def told(gateway: httpx.Client, analysis_id: UUID) -> tuple[int | None, float | None, str | None]:
    reply = gateway.get(f"/v1/analyses/{analysis_id}")
    return reply.json()["queue_position"], reply.json()["eta_s"], reply.headers.get("Retry-After")


def slowed(settings: Settings, seconds: float, ago_s: float = 0.0) -> None:
    """Let what was settled have taken so long, and have ended so long ago."""
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(
            text("""
                UPDATE stages SET finished_at = clock_timestamp() - make_interval(secs => :ago),
                    leased_at = clock_timestamp() - make_interval(secs => :ago + :took) WHERE status = 'ok'
            """),
            {"took": seconds, "ago": ago_s},
        )
    engine.dispose()


def test_the_place_in_the_queue_moves_up_and_the_estimate_is_the_pace_of_late(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    first, second, third = (submit(gateway, clip_file) for _ in range(3))
    assert [told(gateway, i) for i in (first, second, third)] == [(1, None, "1"), (2, None, "1"), (3, None, "1")]

    finish(store, blobs, first)
    slowed(gateway_settings, 8.0)

    assert told(gateway, first) == (None, None, None)
    (place, eta_s, pause), (next_place, later_s, _) = told(gateway, second), told(gateway, third)
    assert (place, next_place) == (1, 2)
    assert eta_s == pytest.approx(16, abs=0.2)
    assert later_s == pytest.approx(24, abs=0.2)
    assert pause == "8"


def test_a_pace_of_long_ago_and_workers_that_are_gone_tell_nothing(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    finish(store, blobs, submit(gateway, clip_file))
    waits = submit(gateway, clip_file)
    for ago_s in (1200.0, 7200.0):
        slowed(gateway_settings, 8.0, ago_s)
        assert told(gateway, waits) == (1, None, "1")


def test_ten_thousand_that_wait_are_counted(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, clip_file: Path
) -> None:
    waits = submit(gateway, clip_file)
    engine = create_engine(gateway_settings.database_url)
    with engine.begin() as c:
        c.execute(
            text("""
                INSERT INTO analyses (id, pipeline_id, state, filename, size_bytes, sha256, deadline_at)
                SELECT CAST(lpad(to_hex(i), 32, '0') AS uuid), pipeline_id, 'queued', 'a', 1, 'ab', deadline_at
                FROM analyses, generate_series(1, 10000) i
            """)
        )
        c.execute(
            text(
                "INSERT INTO stages (analysis_id, stage, status) SELECT id, 'ingest', 'open' FROM analyses"
                " ON CONFLICT DO NOTHING"
            )
        )
    engine.dispose()
    assert told(gateway, waits)[0] == 10_001
