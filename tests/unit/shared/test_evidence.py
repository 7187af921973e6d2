"""Files of evidence are kept whole or not at all, apart from those of a lost lease; only what a row names is found."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from clipwarden.shared.blobs import LocalBlobs, evidence_folder
from clipwarden.shared.blobs.local import LocalWriter
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    Evidence,
    Exhibit,
    ExhibitKind,
    OutcomeStatus,
)
from clipwarden.shared.errors import StorageFull
from clipwarden.shared.evidence import drop_evidence, evidence_key, write_evidence

ANALYSIS = UUID(int=7)
FILES = {"tiny_gate/heatmap-0.png": b"heat", "tiny_gate/series.json": b"{}", "frame_vit/face-0.jpg": b"face"}


class SmallBlobs(LocalBlobs):
    """A store with room for so many blobs."""

    room = 2

    def _writer(self, key: str) -> LocalWriter:
        if not self.room:
            raise StorageFull("no room")
        self.room -= 1
        return super()._writer(key)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    made = LocalBlobs(tmp_path / "blobs")
    made.set_up("one")
    return made


@pytest.fixture
def result() -> BranchResult:
    exhibit = Exhibit(kind=ExhibitKind.HEATMAP, name="heatmap-0.png", size_bytes=4)
    evidence = Evidence(score=0.5, features={}, exhibits=(exhibit,))
    outcome = DetectorOutcome(name="tiny_gate", version="1", status=OutcomeStatus.OK, evidence=evidence)
    return BranchResult(branch=Branch.VISUAL, status=OutcomeStatus.OK, detectors=(outcome,))


def kept(blobs: LocalBlobs) -> set[str]:
    return set(blobs.keys())


def test_what_a_result_names_is_found_and_nothing_else(blobs: LocalBlobs, result: BranchResult) -> None:
    folder = write_evidence(blobs, ANALYSIS, Branch.VISUAL, uuid4(), FILES)
    named = result.model_copy(update={"folder": folder})
    key = evidence_key(named, "tiny_gate", "heatmap-0.png")
    assert key is not None
    assert blobs.read(key) == b"heat"
    for detector, name in [
        ("tiny_gate", "series.json"),
        ("frame_vit", "heatmap-0.png"),
        ("tiny_gate", "../../../uploads/x"),
        ("..", "heatmap-0.png"),
    ]:
        assert evidence_key(named, detector, name) is None
    assert evidence_key(result, "tiny_gate", "heatmap-0.png") is None


def test_two_leases_never_share_a_file(blobs: LocalBlobs) -> None:
    late, owner = (write_evidence(blobs, ANALYSIS, Branch.VISUAL, uuid4(), FILES) for _ in range(2))
    assert len(kept(blobs)) == 2 * len(FILES)
    drop_evidence(blobs, late)
    assert kept(blobs) == {f"{owner}/{name}" for name in FILES}
    drop_evidence(blobs, None)
    assert len(kept(blobs)) == len(FILES)


def test_a_store_that_fills_up_keeps_no_part_of_it(tmp_path: Path) -> None:
    blobs = SmallBlobs(tmp_path / "blobs")
    blobs.set_up("one")
    with pytest.raises(StorageFull):
        write_evidence(blobs, ANALYSIS, Branch.VISUAL, uuid4(), FILES)
    assert kept(blobs) == set()


def test_without_files_there_is_no_folder(blobs: LocalBlobs) -> None:
    assert write_evidence(blobs, ANALYSIS, Branch.VISUAL, uuid4(), {}) is None


def test_evidence_goes_with_its_analysis_and_outlives_the_bundle(blobs: LocalBlobs) -> None:
    for analysis_id in (ANALYSIS, UUID(int=8)):
        for branch in (Branch.VISUAL, Branch.AUDIO):
            write_evidence(blobs, analysis_id, branch, uuid4(), FILES)
    blobs.delete_bundle(ANALYSIS)
    assert len(kept(blobs)) == 4 * len(FILES)
    blobs.delete_folder(evidence_folder(ANALYSIS))
    blobs.delete_folder(evidence_folder(ANALYSIS))
    assert {key.split("/")[1] for key in kept(blobs)} == {str(UUID(int=8))}


@pytest.mark.parametrize("name", ["../up.png", "a/b.png", "script.html", ".png", "A.png", ""])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Exhibit(kind=ExhibitKind.FACE, name=name, size_bytes=0)
