"""scores.csv survives crashes, refuses another pipeline's rows, and reads back what was written."""

import os
from collections.abc import Callable
from dataclasses import replace
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
    key_of,
    once_by_content,
    pipeline_digest,
    read_scores,
)
from clipwarden.models.training.evaluation.manifest import Item
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.errors import ConfigError

NAMES = ("forensic_mlp",)


def row(key: str, **more: str) -> dict[str, str]:
    return {"key": key, "path": f"{key}, or so.mp4", "label": "fake", "status": "ok", "probability": "0.25", **more}


def item(key: str, **more: str) -> Item:
    return replace(Item(2, f"{key}, or so.mp4", True, key), **more)


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
    keep_only(path, {"c": item("c"), "a": item("a")})
    assert read_scores(path).text["key"].tolist() == ["c", "a"]
    assert tuple(path.read_text().splitlines()[0].split(",")) == columns(NAMES)


def test_rows_say_what_the_manifest_says_now(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a", group="old", codec="stated", video_codec="h264"))
        ledger.add(row("b", codec="h264", video_codec="h264"))
    keep_only(path, {"a": item("a", group="g1", generator="maker", identity="ann"), "b": item("b", codec="mjpeg")})
    text = read_scores(path).text
    found = {name: text[name].tolist() for name in ("group", "generator", "identity", "codec", "label")}
    assert found == {
        "group": ["g1", "b"],
        "generator": ["maker", ""],
        "identity": ["ann", ""],
        "codec": ["h264", "mjpeg"],
        "label": ["fake", "fake"],
    }
    assert read_scores(path).number["probability"].tolist() == [0.25, 0.25]


def test_a_file_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Ledger(path, NAMES, "p1") as ledger:
        ledger.add(row("a", status="unreadable"))
        ledger.add(row("b", status="not_media"))
    with Ledger(path, NAMES, "p1") as ledger:
        assert ledger.keys == {"b"}
        ledger.add(row("a"))
    keep_only(path, {"a": item("a"), "b": item("b")})
    assert read_scores(path).text["status"].tolist() == ["ok", "not_media"]


def test_another_file_of_the_same_size_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    before = key_of(item("a"), path)
    assert key_of(item("a"), path) == before
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
    assert key_of(item("a"), path) != before


def test_a_file_under_two_names_counts_once(scores: Scores) -> None:
    digests = scores.text["sha256"].copy()
    digests[[4, 7, 9]] = digests[2]
    status = scores.text["status"].astype("U20")
    status[9] = "not_media"
    both = replace(scores, text={**scores.text, "sha256": digests, "status": status})
    kept, again = once_by_content(both, {"clips/0002.mp4": 30, "clips/0004.mp4": 40})
    assert kept.text["path"].tolist() == [p for k, p in enumerate(scores.text["path"].tolist()) if k not in {4, 7}]
    assert [(d.item.row, d.item.path, d.first.row, d.contradicts) for d in again] == [
        (40, "clips/0004.mp4", 30, False),
        (9, "clips/0007.mp4", 30, True),
    ]


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
        ("path,label,probability\na,real,1\nb,real,-0.5\n", "line 3: probability is -0.5, which does not lie between"),
        ("path,label,probability\na,real,inf\n", "line 2: probability is inf"),
        ("path,label,theirs:score\na,real,7.5\n", "line 2: theirs:score is 7.5"),
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
