"""What becomes of a stage whose worker cannot go on with it: whose fault it was, and what that costs."""

import errno
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import PARTIAL
from clipwarden.shared.contracts import Stage
from clipwarden.shared.errors import ClipwardenError, ConfigError, StorageFull, StorageSick, WorkerFault
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.shared.store.work import HANDED_BACK_S
from clipwarden.workers.faults import JITTER, STARTED_WITH
from clipwarden.workers.fetch import fetch
from clipwarden.workers.ingest import _read
from clipwarden.workers.lease import with_lease
from clipwarden.workers.process import WorkerProcess
from tests.listeners import answer, listening
from tests.services.conftest import MANIFEST, PIPELINE


class Left(Exception):  # noqa: N818 - what a worker that leaves does instead of going on
    pass


@pytest.fixture
def process(settings: Settings) -> Iterator[WorkerProcess]:
    made = WorkerProcess(settings, Queue.INGEST)
    yield made
    made.store.close()


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch) -> list[ClipwardenError]:
    """Why this worker left."""
    reasons: list[ClipwardenError] = []

    def leave(reason: ClipwardenError) -> None:
        reasons.append(reason)
        raise Left

    monkeypatch.setattr("clipwarden.workers.lease.leave", leave)
    return reasons


def submit(store: Store, url: str = "http://127.0.0.1/") -> UUID:
    store.publish(PIPELINE, MANIFEST)
    return store.submit(NewAnalysis("a.mp4", 0, "", None, PIPELINE, deadline_s=600, source_url=url)).id


def work(process: WorkerProcess, analysis_id: UUID, do: Callable[..., Any], retries: int = 0) -> float | None:
    """Work on the stage as a task does; returns after how long its message comes again."""
    pauses: list[float] = []

    def retry(exc: Exception, countdown: float) -> Exception:
        pauses.append(countdown)
        return exc

    task = SimpleNamespace(request=SimpleNamespace(retries=retries), retry=retry)
    with pytest.raises((Left, StorageFull, StorageSick)):
        with_lease(task, process, analysis_id, Stage.FETCH, 60, do)
    return pauses[0] if pauses else None


def row(settings: Settings) -> Any:
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        found = c.execute(
            text("SELECT *, extract(epoch FROM not_before - clock_timestamp()) AS due_in_s FROM stages")
        ).one()
    engine.dispose()
    return found


def raising(error: Exception) -> Callable[..., None]:
    def do(_: object) -> None:
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "status", "attempts"),
    [(ConfigError("lost"), "open", 0), (StorageSick("stale"), "open", 0), (WorkerFault("CUDA error"), "leased", 1)],
)
def test_only_what_the_clip_may_have_caused_costs_an_attempt(
    process: WorkerProcess, store: Store, left: list[ClipwardenError], error: Exception, status: str, attempts: int
) -> None:
    (process.settings.blobs / PARTIAL).write_bytes(b"where no folder can be made")
    assert work(process, submit(store), raising(error)) is None
    found = row(process.settings)
    assert (found.status, found.attempts, left) == (status, attempts, [error])


def test_a_single_file_that_the_system_refuses_ends_no_worker(
    process: WorkerProcess, store: Store, left: list[ClipwardenError]
) -> None:
    do = raising(StorageSick("Permission denied"))
    first, later = (work(process, submit(store), do, retries) for retries in (0, 4))
    assert first is not None
    assert later is not None
    assert later > 3 * first
    assert left == []


def test_a_fetch_into_a_store_that_has_vanished_is_no_round_without_end(
    settings: Settings, store: Store, tmp_path: Path, left: list[ClipwardenError]
) -> None:
    with listening() as origin:
        opened = {"outbound_private": ("127.0.0.1/32",), "outbound_ports": (origin.port,)}
        process = WorkerProcess(settings.model_copy(update=opened), Queue.INGEST)
        origin.answers = [answer(body=b"clip")]
        analysis_id = submit(store, origin.url)
        settings.blobs.rename(tmp_path / "away")
        work(process, analysis_id, partial(fetch, process, analysis_id))
        process.store.close()
    assert [type(reason) for reason in left] == [ConfigError]
    assert (row(settings).status, row(settings).attempts) == ("open", 0)


def test_an_upload_that_the_system_does_not_open_is_the_store_s_fault(process: WorkerProcess) -> None:
    class Stale:
        def open(self, path: Path) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", path)

    vars(process).update(fence=Stale(), faces=None)
    with process.blobs.create() as writer:
        key = writer.commit()
    with pytest.raises(StorageSick, match="Stale file handle"):
        _read(process, Granted(uuid4(), 1, MANIFEST, key))


def test_a_full_store_is_given_more_time_with_each_round(process: WorkerProcess, store: Store) -> None:
    analysis_id = submit(store)
    for retries, most_s in ((0, 5), (4, 80)):
        pause_s = work(process, analysis_id, raising(StorageFull()), retries)
        assert pause_s is not None
        assert (1 - JITTER) * most_s <= pause_s <= (1 + JITTER) * most_s
        found = row(process.settings)
        assert (found.status, found.attempts) == ("open", 0)
        assert float(found.due_in_s) == pytest.approx(pause_s + HANDED_BACK_S, abs=2)


def test_a_pool_process_that_finds_less_than_its_parent_did_does_not_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STARTED_WITH, "forensic_mlp of_yesterday")
    process = WorkerProcess(settings, Queue.VISUAL)
    with pytest.raises(WorkerFault, match="of_yesterday were here when"):
        process.warm()
    process.store.close()
