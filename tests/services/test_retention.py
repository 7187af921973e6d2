"""What is past its age goes, with all that is its own and nothing that is another's; a dry run changes nothing."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS, LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.local.stack import command_line
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, NewBatch, Store
from clipwarden.shared.tables import DEFAULT_TENANT, metadata
from clipwarden.workers.retention import Caretaker
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
    analysis_id = store.submit(new)
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


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is deleted takes three of the five seconds that a turn has."""
    now = [1000.0]

    def slowly(delete: Callable[[LocalBlobs, str], None]) -> Callable[[LocalBlobs, str], None]:
        def later(blobs: LocalBlobs, name: str) -> None:
            now[0] += 3
            delete(blobs, name)

        return later

    monkeypatch.setattr("clipwarden.workers.retention.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(LocalBlobs, "delete", slowly(LocalBlobs.delete))
    monkeypatch.setattr(LocalBlobs, "delete_folder", slowly(LocalBlobs.delete_folder))


def strays(blobs: LocalBlobs, count: int) -> None:
    """Old uploads that nothing names."""
    for n in range(count):
        path = blobs.path(f"{UPLOADS}/stray-{n}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, 0))


@pytest.mark.usefixtures("slow")
def test_a_backlog_of_one_kind_keeps_no_other_waiting(settings: Settings, store: Store, blobs: LocalBlobs) -> None:
    age(settings, EVIDENCE_S + 60, *(finished(store, blobs, bytes([n])) for n in range(12)))
    strays(blobs, 1)
    caretaker, done = Caretaker(settings, store, blobs), Counter[str]()
    for _ in range(5):
        caretaker.turn(done)
    assert {kind: n > 0 for kind, n in (+done).items()} == {
        "uploads_deleted": True,
        "evidence_deleted": True,
        "orphans_deleted": True,
    }
    assert done["uploads_deleted"] < 12


@pytest.mark.usefixtures("slow")
def test_orphans_are_deleted_for_the_time_of_a_turn_and_the_next_goes_on_with_the_same_list(
    settings: Settings, store: Store, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, older_than = list[str](), LocalBlobs.older_than

    def listing(self: LocalBlobs, folder: str, age_s: float) -> list[str]:
        listed.append(folder)
        return older_than(self, folder, age_s)

    monkeypatch.setattr(LocalBlobs, "older_than", listing)
    monkeypatch.setattr("clipwarden.workers.retention.SLICE", 1)
    strays(blobs, 5)
    caretaker, done = Caretaker(settings, store, blobs), Counter[str]()
    deleted = [caretaker.turn(done) or done["orphans_deleted"] for _ in range(4)]
    assert deleted == [2, 4, 5, 5]
    assert listed == [PARTIAL, UPLOADS, BUNDLES]


def test_what_somebody_put_beside_the_bundles_is_left_alone(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    ended = finished(store, blobs)
    for name in ("lost+found", str(ended)):
        folder = blobs.root / BUNDLES / name
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    assert Sweeper(settings).sweep()["orphans_deleted"] == 1
    assert [path.name for path in (blobs.root / BUNDLES).iterdir()] == ["lost+found"]


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
