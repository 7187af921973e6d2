"""scores.csv survives crashes, refuses another pipeline's rows, and reads back what was written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import restricted
from clipwarden.models.training.evaluation.ledger import (
    Ledger,
    Scores,
    columns,
    keep_only,
    pipeline_digest,
    read_scores,
)
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.errors import ConfigError

NAMES = ("forensic_mlp",)


def row(key: str) -> dict[str, str]:
    return {"key": key, "path": f"{key}, or so.mp4", "label": "fake", "status": "ok", "probability": "0.25"}


def test_rows_are_kept_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    for key in ("a", "b"):
        with Ledger(path, NAMES, "p1") as ledger:
            ledger.add(row(key))
    with Ledger(path, NAMES, "p1") as ledger:
        assert ledger.keys == {"a", "b"}
    found = read_scores(path)
    assert found.text["path"].tolist() == ["a, or so.mp4", "b, or so.mp4"]
    assert found.number["probability"].tolist() == [0.25, 0.25]


def test_a_row_cut_short_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a"))
        ledger.add(row("b"))
    path.write_bytes(path.read_bytes()[:-9])
    with Ledger(path, NAMES, "p1") as ledger:
        assert ledger.keys == {"a"}
        ledger.add(row("b"))
    assert read_scores(path).text["key"].tolist() == ["a", "b"]


def test_a_header_cut_short_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("key,pipe")
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a"))
    assert len(read_scores(path)) == 1


@pytest.mark.parametrize(("names", "pipeline"), [(NAMES, "p2"), (("forensic_mlp", "cqcc_cnn"), "p1")])
def test_scores_of_another_pipeline_are_not_mixed_in(tmp_path: Path, names: tuple[str, ...], pipeline: str) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a"))
    with pytest.raises(ConfigError, match="another pipeline"):
        Ledger(path, names, pipeline)
    assert len(read_scores(path)) == 1


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1"), pytest.raises(ConfigError, match="another run is writing"):
        Ledger(path, NAMES, "p1")
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a"))
    assert len(read_scores(path)) == 1


def test_rows_that_are_not_wanted_any_more_leave(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1") as ledger:
        for key in "abca":
            ledger.add(row(key))
    keep_only(path, {"c": 0, "a": 1})
    assert read_scores(path).text["key"].tolist() == ["c", "a"]
    assert tuple(path.read_text().splitlines()[0].split(",")) == columns(NAMES)


def test_scores_of_another_program_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("path,label,probability,theirs:score\na,REAL,0.2,0.1\nb,spoof,0.9,\n")
    found = read_scores(path)
    assert found.fake.tolist() == [False, True]
    assert found.text["verdict"].tolist() == ["real", "fake"]
    assert found.status["theirs"].tolist() == ["ok", ""]
    assert found.examined.all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na,real\n", "need the columns"),
        ("path,label,probability\na,real\n", "line 2: 3 entries"),
        ("path,label,probability\na,real,much\n", "column probability holds something other than numbers"),
        ("path,label,probability\na,real,1\nb,perhaps,1\n", r"line 3 \(b\): label 'perhaps'"),
        ("", "need the columns"),
    ],
)
def test_what_is_no_scores_file_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_scores(path)


def test_ten_thousand_rows_are_read_at_once(scores_file: Callable[..., Path], tmp_path: Path) -> None:
    header, *rows = scores_file(n=500).read_text().splitlines()
    path = tmp_path / "many.csv"
    path.write_text("\n".join([header, *rows * 20]) + "\n")
    found = read_scores(path)
    assert len(found) == 10_000
    assert np.isnan(found.score("cqcc_cnn")).mean() == pytest.approx(0.2)


def test_rows_can_be_chosen(scores: Scores) -> None:
    some = scores.rows(scores.fake)
    assert len(some) == scores.fake.sum()
    assert some.number["probability"].tolist() == scores.number["probability"][scores.fake].tolist()


def test_only_what_can_change_a_score_changes_the_pipelines_digest() -> None:
    manifest = local_manifest()
    idle = [
        d.model_copy(update={"version": "other"}) if d.state is not DetectorState.READY else d
        for d in manifest.detectors
    ]
    assert pipeline_digest(manifest.model_copy(update={"detectors": tuple(idle)})) == pipeline_digest(manifest)
    assert pipeline_digest(restricted(manifest, frozenset({"cqcc_cnn"}))) != pipeline_digest(manifest)
    assert pipeline_digest(manifest.model_copy(update={"faces": "other"})) != pipeline_digest(manifest)
