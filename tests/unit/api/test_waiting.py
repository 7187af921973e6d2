"""The outlook on waiting: what is ahead, at the pace of late, and null where nobody knows."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from clipwarden.api.waiting import UNKNOWN, outlook, pause_s
from clipwarden.shared.contracts import Analysis, AnalysisState, Lane, Stage, StageRow, StageStatus
from clipwarden.shared.store import Pace, Queued

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ME = UUID(int=1000)
BEFORE = [UUID(int=i) for i in range(1, 7)]
AFTER = [UUID(int=i) for i in range(2000, 2003)]
PACES = {Stage.INGEST: Pace(2.0, 1), Stage.VISUAL: Pace(10.0, 2), Stage.AUDIO: Pace(1.0, 1)}
OPEN, LEASED, OK = StageStatus.OPEN, StageStatus.LEASED, StageStatus.OK


def analysis(*stages: tuple[Stage, StageStatus], lane: Lane = Lane.REALTIME, since_s: float = 0.0) -> Analysis:
    begun = NOW - timedelta(seconds=since_s) if any(s is not OPEN for _, s in stages) else None
    rows = tuple(
        StageRow(stage=s, status=status, attempts=1, started_at=None if status is OPEN else begun, created_at=NOW)
        for s, status in stages
    )
    return Analysis(
        id=ME,
        state=AnalysisState.RUNNING if begun else AnalysisState.QUEUED,
        pipeline="p",
        filename="a",
        size_bytes=1,
        sha256="ab",
        probe=None,
        code=None,
        message=None,
        created_at=NOW,
        started_at=begun,
        finished_at=None,
        rerun_of=None,
        tag=None,
        metadata={},
        stages=rows,
        verdict=None,
        lane=lane,
    )


def queued(
    waiting: dict[tuple[Stage, Lane], list[UUID]] | None = None,
    leased: dict[Stage, int] | None = None,
    paces: dict[Stage, Pace] | None = None,
) -> Queued:
    """All of it the tenant's own."""
    return Queued(waiting or {}, leased or {}, PACES if paces is None else paces, {UUID(int=0): waiting or {}})


REAL, BULK = Lane.REALTIME, Lane.BULK
QUEUED = analysis((Stage.INGEST, OPEN))


def test_an_empty_queue_takes_what_the_slowest_branch_takes_after_ingest() -> None:
    assert outlook(QUEUED, queued(), NOW).eta_s == 2 + 10


def test_who_came_before_is_ahead_and_who_came_after_is_not() -> None:
    waiting = {(Stage.INGEST, REAL): [*BEFORE, *AFTER]}
    seen = outlook(QUEUED, queued(waiting), NOW)
    assert seen.position == 7
    assert seen.eta_s == max(7 * 2 + 10, (6 / 2 + 1) * 10)


def test_of_what_others_wait_for_only_the_order_of_magnitude_is_told() -> None:
    own = {(Stage.INGEST, REAL): BEFORE[:2]}
    for others, told in ((0, 0), (1, 10), (10, 10), (11, 20), (21, 50), (99, 100), (101, 200), (5001, 10_000)):
        ahead = [*BEFORE[:2], *(UUID(int=i) for i in range(10, 10 + min(others, 900)))]
        ahead += [UUID(int=500)] * (others - 900)
        seen = Queued({(Stage.INGEST, REAL): sorted(ahead)}, {}, PACES, {UUID(int=0): own})
        assert outlook(QUEUED, seen, NOW).position == 2 + told + 1


def test_who_shares_a_run_waits_as_long_as_that() -> None:
    waiting = {(Stage.INGEST, REAL): [*BEFORE[:2], *AFTER]}
    follower = QUEUED.model_copy(update={"id": UUID(int=3000), "leader_id": ME})
    assert outlook(follower, queued(waiting), NOW) == outlook(QUEUED, queued(waiting), NOW)


def test_bulk_waits_for_all_that_is_urgent_and_is_in_nobodys_way() -> None:
    waiting = {(Stage.INGEST, REAL): AFTER, (Stage.INGEST, BULK): BEFORE}
    bulk = analysis((Stage.INGEST, OPEN), lane=BULK)
    assert outlook(bulk, queued(waiting), NOW).position == len(AFTER) + len(BEFORE) + 1
    assert outlook(QUEUED, queued(waiting), NOW).position == 1


def test_work_that_began_is_counted_down_and_never_below_nothing() -> None:
    for since_s, left_s in ((0.0, 12.0), (1.5, 10.5), (60.0, 10.0)):
        begun = analysis((Stage.INGEST, LEASED), since_s=since_s)
        seen = outlook(begun, queued(leased={Stage.INGEST: 1}, paces=PACES | {Stage.VISUAL: Pace(10.0, 9)}), NOW)
        assert (seen.position, seen.eta_s) == (None, left_s)


def test_the_branches_run_side_by_side_and_the_slowest_counts() -> None:
    rows = ((Stage.INGEST, OK), (Stage.VISUAL, LEASED), (Stage.AUDIO, OPEN))
    waiting = {(Stage.AUDIO, REAL): BEFORE}
    seen = outlook(analysis(*rows, since_s=7), queued(waiting, {Stage.VISUAL: 1, Stage.AUDIO: 1}), NOW)
    assert seen.eta_s == max(10 - 7, (6 + 1 - 1 + 1) * 1 + 1)


def test_two_workers_halve_the_wait() -> None:
    waiting = {(Stage.INGEST, REAL): BEFORE}
    twice = queued(waiting, paces=PACES | {Stage.INGEST: Pace(2.0, 2), Stage.VISUAL: Pace(0.0, 2)})
    once = queued(waiting, paces=PACES | {Stage.VISUAL: Pace(0.0, 2)})
    one, two = outlook(QUEUED, once, NOW).eta_s, outlook(QUEUED, twice, NOW).eta_s
    assert one
    assert two
    assert (one - 2) / (two - 2) == pytest.approx(2, rel=0.3)


@pytest.mark.parametrize(
    "paces", [{}, {Stage.INGEST: Pace(2.0, 1)}, {Stage.VISUAL: Pace(2.0, 1)}, PACES | {Stage.INGEST: Pace(2.0, 0)}]
)
def test_what_nobody_knows_is_not_guessed(paces: dict[Stage, Pace]) -> None:
    seen = outlook(QUEUED, queued(paces=paces), NOW)
    assert (seen.position, seen.eta_s) == (1, None)


def test_what_is_settled_only_waits_to_be_fused() -> None:
    rows = ((Stage.INGEST, OK), (Stage.VISUAL, OK))
    assert outlook(analysis(*rows), queued(), NOW).eta_s == 0
    assert (UNKNOWN.position, UNKNOWN.eta_s) == (None, None)


@pytest.mark.parametrize(("eta_s", "pause"), [(None, 1), (0.0, 1), (1.0, 1), (9.0, 5), (3600.0, 30)])
def test_who_waits_longer_is_asked_to_look_less_often(eta_s: float | None, pause: int) -> None:
    assert pause_s(eta_s) == pause
