"""What nothing names goes, a few seconds of it a turn, however much of it there is or has to be looked at."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest

from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS, LocalBlobs
from clipwarden.shared.contracts import Branch, Stage
from clipwarden.shared.evidence import write_evidence
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.workers.retention import Caretaker
from clipwarden.workers.sweep import Sweeper
from tests import analyses
from tests.services.test_retention import EVIDENCE_S, ROWS_S, age, finished, submitted


@pytest.fixture
def blobs(settings: Settings) -> LocalBlobs:
    return LocalBlobs(settings.blobs)


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

    def listing(self: LocalBlobs, folder: str, age_s: float, depth: int = 1) -> Iterator[list[str]]:
        listed.append(folder)
        return older_than(self, folder, age_s, depth)

    monkeypatch.setattr(LocalBlobs, "older_than", listing)
    monkeypatch.setattr("clipwarden.shared.blobs.local.PAGE", 1)
    strays(blobs, 5)
    caretaker, done = Caretaker(settings, store, blobs), Counter[str]()
    deleted = [caretaker.turn(done) or done["orphans_deleted"] for _ in range(4)]
    assert deleted == [2, 4, 5, 5]
    assert listed == [PARTIAL, UPLOADS, BUNDLES, EVIDENCE]


def test_a_long_listing_takes_no_more_than_a_turn_and_goes_on_in_the_next(
    settings: Settings, store: Store, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pages, older_than = [1000.0], list[list[str]](), LocalBlobs.older_than

    def slowly(self: LocalBlobs, folder: str, age_s: float, depth: int = 1) -> Iterator[list[str]]:
        for page in older_than(self, folder, age_s, depth):
            now[0] += 3
            pages.append(page)
            yield page

    monkeypatch.setattr("clipwarden.workers.retention.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(LocalBlobs, "older_than", slowly)
    monkeypatch.setattr("clipwarden.shared.blobs.local.PAGE", 1)
    for n in range(5):
        submitted(store, blobs, bytes([n]))
    caretaker, done = Caretaker(settings, store, blobs), Counter[str]()
    assert [caretaker.turn(done) or len(pages) for _ in range(4)] == [2, 4, 5, 5]
    assert not any(pages)
    assert not +done


def test_evidence_of_a_lost_attempt_goes_and_what_is_named_or_being_made_stays(
    settings: Settings, store: Store, blobs: LocalBlobs
) -> None:
    ended, running = finished(store, blobs, b"ended"), submitted(store, blobs, b"running")
    again = submitted(store, blobs, b"ended")
    analyses.ingest(store, running)
    lost = write_evidence(blobs, ended, Branch.VISUAL, uuid4(), analyses.FILES)
    token = analyses.claim(store, running, Stage.VISUAL)
    made = write_evidence(blobs, running, Branch.VISUAL, token, analyses.FILES)
    before = {key for key in blobs.keys() if key.startswith(EVIDENCE)}
    assert Sweeper(settings).sweep()["orphans_deleted"] == 0
    at_once = settings.model_copy(update={"orphan_retention_s": 0.0})
    assert Sweeper(at_once).sweep()["orphans_deleted"] == 1
    left = {key for key in blobs.keys() if key.startswith(EVIDENCE)}
    assert before - left == {f"{lost}/{name}" for name in analyses.FILES}
    assert store.finish_branch(running, token, analyses.found().model_copy(update={"folder": made}))
    age(settings, ROWS_S + 60, ended)
    Sweeper(at_once).sweep()
    assert store.analysis(ended) is None
    Sweeper(at_once).sweep()
    assert {key for key in blobs.keys() if key.startswith(EVIDENCE)} == left, f"{again} names what it took over"


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
