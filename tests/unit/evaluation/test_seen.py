"""Training material is recognised by digests, and by people and footage."""

import hashlib
from pathlib import Path

import pytest

from clipwarden.models.training.evaluation.ledger import Scores
from clipwarden.models.training.evaluation.seen import overlap, record, shipped, trained_on
from clipwarden.models.weights import file_digest


def digest(k: int) -> str:
    return hashlib.sha256(str(k).encode()).hexdigest()


def manifest(path: Path, rows: str) -> Path:
    path.write_text("path,label,sha256,identity\n" + rows)
    return path


def test_items_that_were_trained_on_are_counted_once(tmp_path: Path, scores: Scores) -> None:
    rows = f"x.mp4,real,{digest(0)},Person 0\ny.mp4,fake,{digest(9).upper()},\n"
    found = overlap(scores, trained_on(manifest(tmp_path / "train.csv", rows)))
    assert (found.files, found.people, found.examined) == (2, 3, 120)
    assert str(found) == (
        "2 of 120 examined items were in the training data of train.csv, 3 more share a person or footage with it"
    )


def test_files_without_a_stated_digest_are_digested(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"film")
    found = trained_on(manifest(tmp_path / "train.csv", "x.mp4,real,,\ngone.mp4,real,,\n"))
    digest = file_digest(tmp_path / "x.mp4").removeprefix("sha256:")
    assert len(found.files) == 1
    assert digest.startswith(next(iter(found.files)))


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    trained = trained_on(manifest(tmp_path / "train.csv", f"x.mp4,real,{digest(1)},ann\n"))
    path = record(["a", "b"], trained, tmp_path / "seen.json")
    record(["b"], trained_on(manifest(tmp_path / "other.csv", f"y.mp4,real,{digest(2)},\n")), path)
    found = {t.name: t for t in shipped(["a", "b", "c"], path)}
    assert set(found) == {"a", "b"}
    assert (found["a"].files, found["a"].people) == (trained.files, trained.people)
    assert found["b"].files != trained.files


@pytest.mark.parametrize("name", ["forensic_mlp", "cqcc_cnn", "speech_stats", "fusion"])
def test_the_shipped_weights_say_what_they_were_trained_on(name: str) -> None:
    known = {t.name: t for t in shipped(["forensic_mlp", "cqcc_cnn", "speech_stats"])}
    assert len(known[name].files) > 100
