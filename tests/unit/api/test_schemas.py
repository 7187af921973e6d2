"""The views say what the domain values say, and the documented examples are true to them."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from clipwarden.api.examples import ANALYSIS, DETECTORS, LISTED, QUEUED, SEED_ACCEPTED, SEED_DONE
from clipwarden.api.problems import STATUS
from clipwarden.api.progress import percent, phase
from clipwarden.api.schemas import AnalysisView, ListView
from clipwarden.api.seed_routes import SeedStatus
from clipwarden.api.service_schemas import DetectorsView
from clipwarden.shared.codes import SENTENCES, ProblemCode, SkipCode
from clipwarden.shared.contracts import (
    Analysis,
    AnalysisState,
    Branch,
    BranchResult,
    OutcomeStatus,
    Stage,
    StageRow,
    StageStatus,
)
from clipwarden.shared.ids import new_id

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(stage: Stage, status: StageStatus, seconds: float | None = None) -> StageRow:
    end = None if seconds is None else START + timedelta(seconds=seconds)
    started = None if seconds is None else START
    return StageRow(stage=stage, status=status, attempts=1, started_at=started, finished_at=end, created_at=START)


def analysis(*stages: StageRow, state: AnalysisState = AnalysisState.RUNNING, started: bool = True) -> Analysis:
    return Analysis(
        id=new_id(),
        state=state,
        pipeline="sha256:p",
        filename="a.mp4",
        size_bytes=1,
        sha256="ab",
        probe=None,
        code=None,
        message=None,
        created_at=START - timedelta(milliseconds=250),
        started_at=START if started else None,
        finished_at=None,
        rerun_of=None,
        tag=None,
        metadata={},
        stages=stages,
        verdict=None,
    )


INGESTED = row(Stage.INGEST, StageStatus.OK, 0.5)
OPEN, LEASED, OK = StageStatus.OPEN, StageStatus.LEASED, StageStatus.OK


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (analysis(row(Stage.INGEST, OPEN), state=AnalysisState.QUEUED, started=False), (None, 0)),
        (analysis(row(Stage.FETCH, LEASED)), ("fetch", 5)),
        (analysis(row(Stage.FETCH, OK, 1), row(Stage.INGEST, OPEN)), ("ingest", 5)),
        (analysis(row(Stage.INGEST, LEASED)), ("ingest", 5)),
        (analysis(INGESTED, row(Stage.VISUAL, OPEN), row(Stage.AUDIO, LEASED)), ("assess", 30)),
        (analysis(INGESTED, row(Stage.VISUAL, OK, 1), row(Stage.AUDIO, LEASED)), ("assess", 60)),
        (analysis(INGESTED, row(Stage.VISUAL, OK, 1), row(Stage.AUDIO, StageStatus.FAILED, 1)), ("fuse", 95)),
        (analysis(row(Stage.INGEST, OPEN), row(Stage.VISUAL, OK, 1)), ("ingest", 5)),
        (analysis(INGESTED, row(Stage.VISUAL, OK, 1), state=AnalysisState.DONE), ("fuse", 100)),
    ],
)
def test_progress_follows_the_stage_rows(made: Analysis, expected: tuple[str | None, int]) -> None:
    assert (phase(made), percent(made)) == expected


def test_timings_name_each_stage_that_ended() -> None:
    made = AnalysisView.from_domain(analysis(INGESTED, row(Stage.VISUAL, OK, 2), row(Stage.AUDIO, OPEN)))

    assert made.timings_ms == {"queued": 250, "ingest": 500, "visual": 2000}


def test_a_skipped_branch_says_why_in_a_sentence() -> None:
    result = BranchResult(branch=Branch.AUDIO, status=OutcomeStatus.SKIPPED, code=SkipCode.SILENT_AUDIO)
    skipped = row(Stage.AUDIO, StageStatus.SKIPPED).model_copy(
        update={"code": SkipCode.SILENT_AUDIO, "outcome": result.model_dump(mode="json")}
    )

    shown = AnalysisView.from_domain(analysis(INGESTED, skipped)).branches[Branch.AUDIO]

    assert (shown.status, shown.code, shown.message) == ("skipped", "silent_audio", SENTENCES[SkipCode.SILENT_AUDIO])


def test_what_is_not_known_is_null_and_never_invented() -> None:
    shown = AnalysisView.from_domain(analysis(row(Stage.INGEST, LEASED))).model_dump()

    unknown = ("queue_position", "eta_s", "verdict", "error", "finished_at", "rerun_of")
    assert all(shown[name] is None for name in unknown)
    assert {shown["input"][name] for name in ("kind", "duration_s", "width", "height", "fps", "has_audio")} == {None}
    assert set(shown["links"]) == {"self", "events"}


def test_the_documented_examples_are_exactly_what_the_views_write() -> None:
    for example in (ANALYSIS, QUEUED):
        assert AnalysisView.model_validate(example).model_dump(mode="json") == example
    assert ListView.model_validate(LISTED).model_dump(mode="json") == LISTED
    assert DetectorsView.model_validate(DETECTORS).model_dump(mode="json") == DETECTORS
    for example in (SEED_ACCEPTED, SEED_DONE):
        assert SeedStatus.model_validate(example).model_dump(mode="json", exclude_none=True) == example


def test_the_documented_contributions_add_up() -> None:
    told = ANALYSIS["verdict"]
    p, parts = told["probability"], [c["log_odds"] for c in told["contributions"]]

    assert math.log(p / (1 - p)) == pytest.approx(told["baseline_logit"] + sum(parts))


def test_every_problem_code_has_a_status() -> None:
    assert set(ProblemCode) <= set(STATUS)
    assert all(400 <= status < 600 for status in STATUS.values())
