"""A sick machine finds out by itself; a healthy one that met bad clips goes on."""

from typing import ClassVar

import pytest

from clipwarden.models.assess import Loaded
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.selftest import known_clip, self_test
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import (
    AudioNeed,
    Branch,
    BranchResult,
    DetectorState,
    Evidence,
    FrameNeed,
    ManifestDetector,
    Needs,
    OutcomeStatus,
)
from clipwarden.shared.errors import DetectorError, WorkerFault
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.workers.process import WorkerProcess

NEEDS = Needs(frames=FrameNeed(view="face", count=3, size_px=32), audio=AudioNeed(seconds=9, min_seconds=5))
FAILED = BranchResult(branch=Branch.VISUAL, status=OutcomeStatus.FAILED, code="internal")


class Judge:
    """A detector that works until it is told that it is sick."""

    spec: ClassVar[DetectorSpec]
    sick = False
    judged = 0

    def assess(self, clip: Clip) -> Evidence:
        self.judged += 1
        if self.sick:
            raise DetectorError("no")
        return Evidence(score=0.5, features={"n": len(clip.view(NEEDS.frames))})


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def worker(judge: Judge) -> WorkerProcess:
    process = WorkerProcess(Settings(), Queue.VISUAL)
    entry = ManifestDetector(
        name="judge",
        version="1",
        branch=Branch.VISUAL,
        state=DetectorState.READY,
        weights=f"sha256:{'0' * 64}",
        needs=NEEDS,
    )
    process.detectors = (Loaded(entry, judge),)
    return process


def test_the_known_clip_is_the_same_each_time_and_as_long_as_needed() -> None:
    one, two = known_clip([NEEDS]), known_clip([NEEDS])
    assert (one.sounds[16_000].wave == two.sounds[16_000].wave).all()
    assert (one.view(NEEDS.frames).images == two.view(NEEDS.frames).images).all()
    assert one.view(NEEDS.frames).images.shape == (3, 32, 32, 3)
    assert len(one.sounds[16_000]) == 5 * 16_000


def test_three_failures_in_a_row_lead_to_a_test_that_a_healthy_worker_passes(
    worker: WorkerProcess, judge: Judge
) -> None:
    for expected in (0, 0, 1, 1, 1, 2):
        worker.weigh(FAILED)
        assert judge.judged == expected


def test_a_success_between_failures_starts_the_count_again(worker: WorkerProcess, judge: Judge) -> None:
    for result in (FAILED, FAILED, FAILED.model_copy(update={"status": OutcomeStatus.OK}), FAILED, FAILED):
        worker.weigh(result)
    assert judge.judged == 0


def test_a_sick_worker_is_told_apart(worker: WorkerProcess, judge: Judge) -> None:
    judge.sick = True
    worker.weigh(FAILED)
    worker.weigh(FAILED)
    with pytest.raises(WorkerFault, match="judge"):
        worker.weigh(FAILED)


def test_a_pool_without_detectors_has_nothing_to_test() -> None:
    self_test(Branch.CLIP, ())
