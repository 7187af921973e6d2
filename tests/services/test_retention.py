"""What is past its age goes, with all that is its own and nothing that is another's; a dry run changes nothing."""

import os
import subprocess
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import EVIDENCE, LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.local.stack import command_line
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, NewBatch, Store, WantedDeliveries
from clipwarden.shared.tables import DEFAULT_TENANT, metadata
from clipwarden.workers.sweep import Sweeper
from tests import analyses
from tests.services.conftest import MANIFEST, PIPELINE

DAY_S = 24 * 3600
EVIDENCE_S, ROWS_S = 30 * DAY_S, 365 * DAY_S


@pytest.fixture
def blobs(settings: Settings) -> LocalBlobs:
    return LocalBlobs(settings.blobs)


def submitted(store: Store, blobs: LocalBlobs, content: bytes = b"clip", reusable: bool = True) -> UUID:
    store.publish(PIPELINE, MANIFEST)
    with blobs.create() as writer:
        writer.write(content)
        key = writer.commit()
    new = NewAnalysis("a.mp4", len(content), writer.sha256, key, PIPELINE, deadline_s=60, reusable=reusable)
    analysis_id = store.submit(new).id
    named = store.analysis(analysis_id)
    assert named is not None
    if named.upload_key != key:
        blobs.delete(key)
    return analysis_id


def finished(store: Store, blobs: LocalBlobs, content: bytes = b"clip") -> UUID:
    analysis_id = submitted(store, blobs, content)
    analyses.finish(store, blobs, analysis_id)
    return analysis_id


def age(settings: Settings, seconds: float, *analysis_ids: UUID) -> None:
    """Have analyses ended as long ago."""
    _execute(
        settings,
        "UPDATE analyses SET finished_at = finished_at - make_interval(secs => :s) WHERE id = ANY(:ids)",
        "UPDATE stages SET finished_at = finished_at - make_interval(secs => :s) WHERE analysis_id = ANY(:ids)",
        s=seconds,
        ids=list(analysis_ids),
    )


def _execute(settings: Settings, *statements: str, **values: object) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        for statement in statements:
            c.execute(text(statement), values)
    engine.dispose()


def everything(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table."""
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        found = {table.name: sorted(map(str, c.execute(table.select()))) for table in metadata.sorted_tables}
    engine.dispose()
    return found


def evidence(blobs: LocalBlobs) -> set[str]:
    """Analyses whose evidence is there."""
    return {key.split("/")[1] for key in blobs.keys() if key.startswith(EVIDENCE)}


def exhibits(store: Store, analysis_id: UUID) -> list[object]:
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    row = next(s for s in analysis.stages if s.stage is Stage.VISUAL)
    assert row.outcome is not None
    (detector,) = row.outcome["detectors"]
    assert detector["evidence"]["score"] == 0.75
    return [*detector["evidence"].get("exhibits", []), *filter(None, [row.outcome.get("folder")])]


def test_evidence_goes_with_its_age_and_what_was_found_stays(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    old, young = finished(store, blobs, b"old"), finished(store, blobs, b"young")
    age(settings, EVIDENCE_S + 60, old)
    age(settings, EVIDENCE_S - 60, young)
    assert Sweeper(settings).sweep()["evidence_deleted"] == 1
    assert evidence(blobs) == {str(young)}
    assert exhibits(store, old) == []
    assert len(exhibits(store, young)) == 3
    assert Sweeper(settings).sweep()["evidence_deleted"] == 0


def test_evidence_stays_as_long_as_a_younger_analysis_shows_it(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    first = finished(store, blobs)
    age(settings, EVIDENCE_S + 60, first)
    again = submitted(store, blobs)
    assert len(exhibits(store, again)) == 3
    Sweeper(settings).sweep()
    assert evidence(blobs) == {str(first)}
    assert (len(exhibits(store, first)), len(exhibits(store, again))) == (0, 3)
    age(settings, EVIDENCE_S + 60, again)
    assert Sweeper(settings).sweep()["evidence_deleted"] == 1
    assert evidence(blobs) == set()


def test_an_analysis_past_its_age_goes_with_all_that_is_its_own(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    patient = settings.model_copy(update={"upload_retention_s": 2.0 * ROWS_S, "evidence_retention_s": 0.0})
    store.publish(PIPELINE, MANIFEST)
    before = everything(settings)
    new = NewAnalysis("a.mp4", 4, "ab", "uploads/a", PIPELINE, 60, callback_url="http://127.0.0.1/hook")
    with blobs.create("uploads/a") as writer:
        writer.write(b"clip")
        writer.commit()
    batch = store.batch(store.open_batch(NewBatch(DEFAULT_TENANT, (new,))), DEFAULT_TENANT, 0, 1)
    assert batch is not None
    analysis_id = batch.items[0].analysis_id
    assert analysis_id is not None
    analyses.finish(store, blobs, analysis_id)
    store.add_feedback(analysis_id, "fake", "other", None, None)
    age(settings, ROWS_S + 60, analysis_id)
    _execute(settings, "UPDATE batches SET created_at = created_at - make_interval(secs => :s)", s=ROWS_S + 60)
    done = Sweeper(patient).sweep()
    assert (done["analyses_deleted"], done["batches_deleted"]) == (1, 1)
    assert list(blobs.keys()) == []
    assert everything(settings) == before


def test_what_has_not_ended_or_is_kept_for_ever_stays(settings: Settings, store: Store, blobs: LocalBlobs) -> None:
    old, running = finished(store, blobs, b"old"), submitted(store, blobs, b"running")
    _execute(settings, "UPDATE analyses SET created_at = created_at - interval '2 years'")
    age(settings, 2 * ROWS_S, old)
    for_ever = settings.model_copy(update={"evidence_retention_s": 0.0, "row_retention_s": 0.0})
    Sweeper(for_ever).sweep()
    assert len(exhibits(store, old)) == 3
    assert Sweeper(settings).sweep()["analyses_deleted"] == 1
    assert store.analysis(old) is None
    assert store.analysis(running) is not None


def test_nothing_is_forgotten_whose_files_cannot_be_deleted(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    analysis_id = finished(store, blobs)

    def fail(_: object) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        store.drop_analysis(analysis_id, fail)
    with pytest.raises(OSError, match="no"):
        store.drop_evidence(analysis_id, fail)
    assert len(exhibits(store, analysis_id)) == 3


def test_one_file_that_cannot_be_deleted_keeps_no_other_from_being_deleted(
    settings: Settings, store: Store, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = finished(store, blobs, b"stuck"), finished(store, blobs, b"other")
    age(settings, ROWS_S + 60, stuck)
    age(settings, EVIDENCE_S + 60, stuck, other)
    delete_folder = LocalBlobs.delete_folder

    def delete(self: LocalBlobs, folder: str) -> None:
        if str(stuck) in folder:
            raise Unavailable("no")
        delete_folder(self, folder)

    monkeypatch.setattr(LocalBlobs, "delete_folder", delete)
    assert Sweeper(settings).sweep()["evidence_deleted"] == 1
    assert evidence(blobs) == {str(stuck)}
    assert store.analysis(stuck) is not None
    monkeypatch.undo()
    assert Sweeper(settings).sweep()["evidence_deleted"] == 1
    assert (evidence(blobs), store.analysis(stuck)) == (set(), None)


def test_a_blob_store_that_is_away_costs_a_turn_a_few_tries(
    settings: Settings, store: Store, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [finished(store, blobs, bytes([n])) for n in range(4)]
    age(settings, EVIDENCE_S + 60, *several)
    tries = list[str]()

    def away(_: LocalBlobs, folder: str) -> None:
        tries.append(folder)
        raise Unavailable("no")

    monkeypatch.setattr(LocalBlobs, "delete_folder", away)
    monkeypatch.setattr("clipwarden.workers.retention.MOST_FAILURES", 1)
    Sweeper(settings).sweep()
    assert len(tries) == 2


def test_a_ping_goes_with_its_age(settings: Settings, store: Store) -> None:
    old, young, _open = (store.open_ping(DEFAULT_TENANT, "http://127.0.0.1/") for _ in range(3))
    ended = "UPDATE deliveries SET finished_at = clock_timestamp() - make_interval(secs => :s) WHERE id = :id"
    _execute(settings, ended, s=ROWS_S + 60, id=old.id)
    _execute(settings, ended, s=ROWS_S - 60, id=young.id)
    assert Sweeper(settings).sweep()["callbacks_deleted"] == 1
    assert store.delivery(old.id, DEFAULT_TENANT) is None
    assert len(store.listed_deliveries(WantedDeliveries(DEFAULT_TENANT, 10))) == 2


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    old, shown, rejected, stuck, decided, _waiting = (
        submitted(store, blobs, name) for name in (b"old", b"shown", b"rejected", b"stuck", b"decided", b"waiting")
    )
    for analysis_id in (old, shown):
        analyses.finish(store, blobs, analysis_id)
    age(settings, ROWS_S + 60, old)
    age(settings, EVIDENCE_S + 60, shown)
    store.end_ingest(rejected, analyses.claim(store, rejected, Stage.INGEST), RejectCode.NOT_MEDIA, "no")
    analyses.ingest(store, stuck)
    store.claim(stuck, Stage.VISUAL, 0, 3, "w")
    _execute(settings, "UPDATE stages SET attempts = 3 WHERE analysis_id = :id AND stage = 'visual'", id=stuck)
    analyses.ingest(store, decided)
    analyses.assess(store, blobs, decided)
    age(settings, 60, decided)
    rows, files = everything(settings), list(blobs.keys())
    said = dry_run(settings).splitlines()
    assert dict(line.split() for line in said[:-1]) == {
        "analyses_deleted": "1",
        "evidence_deleted": "2",
        "fused": "1",
        "poison": "1",
        "sent": "1",
        "uploads_deleted": "3",
    }
    assert said[-1] == "nothing was changed"
    assert (everything(settings), list(blobs.keys())) == (rows, files)
    done = Sweeper(settings).sweep()
    assert {kind: done[kind] for kind in ("analyses_deleted", "poison", "sent")} == {
        "analyses_deleted": 1,
        "poison": 1,
        "sent": 1,
    }


def dry_run(settings: Settings) -> str:
    environment = {
        **os.environ,
        "CLIPWARDEN_DATABASE_URL": settings.database_url,
        "CLIPWARDEN_REDIS_URL": settings.redis_url,
        "CLIPWARDEN_BLOB_DIR": str(settings.blobs),
    }
    command = [*command_line(), "sweep", "--dry-run"]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_two_sweepers_take_turns(settings: Settings, store: Store) -> None:
    with store.sweeping() as mine:
        assert mine
        assert Sweeper(settings).sweep() is None
