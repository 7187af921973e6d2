"""`clipwarden evaluate` on generated files with the installed weights, and everything that it writes."""

import csv
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clipwarden.shared.cli import main
from tests import media

DETECTORS = "forensic_mlp,cqcc_cnn"
MARKUP = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, talking_head: Path, still: Path, wav: Path) -> Path:
    """A report over a clip, sound, two pictures, no media, a missing file, no file's name, and two duplicates."""
    folder = tmp_path_factory.mktemp("set")
    for path in (talking_head, still, wav):
        shutil.copy(path, folder)
    media.write_still(folder / "other.png", next(media.faces(1, seed=3)))
    shutil.copy(still, folder / "copy.jpg")
    (folder / "notes.mp4").write_text("no film " * 50)
    rows = [
        ("talking head.mp4", "Real", "a", ""),
        ("still.jpg", "fake", "b", MARKUP),
        ("other.png", "REAL", "c", ""),
        ("speech.wav", "spoof", "d", "voice"),
        ("notes.mp4", "real", "e", ""),
        ("gone.mp4", "fake", "f", ""),
        ("./still.jpg", "real", "g", ""),
        ("copy.jpg", "real", "h", ""),
        ("no\0name.mp4", "fake", "i", ""),
    ]
    with (folder / "set.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "group", "generator"), *rows])
    assert evaluate(folder, "--detectors", DETECTORS, "--robustness", "2") == 0
    return folder


def evaluate(folder: Path, *more: str) -> int:
    return main(["evaluate", str(folder / "set.csv"), "--out", str(folder / "out"), *more])


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_row_is_accounted_for(run: Path) -> None:
    found = metrics(run / "out")
    coverage = found["coverage"]
    assert (coverage["rows"], coverage["examined"], coverage["duplicates"], coverage["contradictions"]) == (9, 4, 2, 2)
    assert coverage["duplicate_rows"][1] == {"line": 9, "path": "copy.jpg", "of_line": 3}
    assert coverage["refused"] == {"not_media": 1, "missing": 1, "unreadable": 1}
    assert coverage["detectors"]["cqcc_cnn"]["left_out"] == {"no_audio": 2}
    assert set(found["fused"]) >= {"auc", "eer", "fpr_at_threshold", "ece", "source_matched_auc"}
    assert set(found["fused"]["auc"]) == {"value", "low", "high"}
    assert found["about"]["models"]["forensic_mlp"]["weights"].startswith("sha256:")
    warned = {w["code"] for w in found["warnings"]}
    assert {"contradiction", "few_groups"} <= warned
    assert "other_pipeline" not in warned


def test_scores_hold_what_the_pipeline_says_of_each_file(run: Path) -> None:
    rows = {row["path"]: row for row in table(run / "out/scores.csv")}
    assert rows["gone.mp4"]["status"] == "missing"
    assert (rows["no\0name.mp4"]["status"], rows["no\0name.mp4"]["message"]) == ("unreadable", "embedded null byte")
    clip = rows["talking head.mp4"]
    assert 0 < float(clip["probability"]) < 1
    assert clip["verdict"] in {"real", "fake", "inconclusive"}
    assert (clip["label"], clip["kind"]) == ("real", "video")
    assert (clip["width"], clip["has_audio"], clip["video_codec"]) == ("320", "1", "h264")
    assert float(clip["sharpness"]) > 0
    assert float(clip["face_px"]) > 60
    assert -40 < float(clip["level_dbfs"]) < 0
    assert 3000 < float(clip["bandwidth_hz"]) <= 8000
    told = json.loads((run / "out/scores.json").read_text())
    assert [row["path"] for row in told["rows"]] == list(rows)
    assert set(told["about"]["models"]) == {"forensic_mlp", "cqcc_cnn"}


def test_a_second_run_examines_only_what_is_new(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(run, folder)
    path = folder / "out/scores.csv"
    rows = path.read_text().splitlines(keepends=True)
    kept = next(k for k, row in enumerate(rows) if "talking head" in row)
    rows[kept] = rows[kept].replace("h264", "kept")
    gone = next(k for k, row in enumerate(rows) if "other.png" in row)
    path.write_text("".join(rows[:gone] + rows[gone + 1 :])[:-5])
    manifest = folder / "set.csv"
    manifest.write_text(manifest.read_text().replace("Real,a,", "Real,another,"))
    assert evaluate(folder, "--detectors", DETECTORS) == 0
    again = {row["path"]: row for row in table(path)}
    assert again["talking head.mp4"]["video_codec"] == "kept"
    assert again["talking head.mp4"]["group"] == "another"
    before = {row["path"]: row for row in table(run / "out/scores.csv")}
    assert again["other.png"] == before["other.png"]
    assert list(again) == list(before)


def test_the_page_needs_nothing_and_runs_nothing(run: Path) -> None:
    text = (run / "out/report.html").read_text()
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Reader().feed(text)
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe"}
    loaded = [value for _, attrs in tags for name in ("src", "href", "xlink:href") if (value := attrs.get(name))]
    assert all(value.startswith("#") for value in loaded)
    assert sum(tag == "svg" for tag, _ in tags) == 5
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text


def test_robustness_judges_the_same_files_encoded_once_more(run: Path) -> None:
    levels = metrics(run / "out")["robustness"]
    assert next(iter(levels)) == "as it is"
    assert len(levels) == 4
    counts = [level["counts"] for level in levels.values()]
    assert all(c == counts[0] for c in counts)
    assert counts[0]["items"] == 2


def test_copies_of_a_file_that_was_exchanged_do_not_count(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(run, folder)
    copies = folder / "out/scores-recoded-1.csv"
    row = copies.read_text().splitlines()[-1]
    copies.write_text(copies.read_text() + row.replace(row[:24], "0" * 24) + "\n")
    assert evaluate(folder, "--detectors", DETECTORS, "--robustness", "2") == 0
    assert metrics(folder / "out")["robustness"] == metrics(run / "out")["robustness"]


def test_a_scores_file_is_measured_again_without_models(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "--scores", str(run / "out/scores.csv"), "--out", str(tmp_path)]) == 0
    before, after = metrics(run / "out"), metrics(tmp_path)
    for name in ("fused", "detectors", "baselines", "breakdown", "ablation"):
        assert after[name] == before[name]
    assert "other_pipeline" not in {w["code"] for w in after["warnings"]}
    assert "what follows is installed here now" not in (tmp_path / "report.html").read_text()


def test_scores_of_another_pipeline_are_told_from_what_is_installed(
    scores_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert main(["evaluate", "--scores", str(scores_file()), "--out", str(tmp_path)]) == 0
    found = metrics(tmp_path)
    assert found["about"]["pipeline"] == "sha256:0" != found["about"]["installed"]
    assert "other_pipeline" in {w["code"] for w in found["warnings"]}
    assert "The scores are of pipeline sha256:0; what follows is installed" in (tmp_path / "report.html").read_text()


def test_two_scores_files_are_compared(
    scores_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better, worse = scores_file(strength=3.0, name="a.csv"), scores_file(strength=0.2, name="b.csv")
    assert main(["evaluate", "--compare", str(better), str(worse), "--out", str(tmp_path / "c")]) == 0
    assert "first less second" in capsys.readouterr().out
    subjects = json.loads((tmp_path / "c/comparison.json").read_text())["subjects"]
    fused = subjects[0]
    assert [s["subject"] for s in subjects] == ["fused", "forensic_mlp", "cqcc_cnn"]
    assert fused["difference"]["low"] > 0 < fused["delong"]["low"]
    assert fused["difference"]["value"] == pytest.approx(fused["first"]["value"] - fused["second"]["value"])


def test_the_help_says_how_labels_and_headings_are_spelled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "real is spelled real, 0, bonafide" in told
    assert "generator: generator, system, method" in told


@pytest.mark.parametrize("command", [["evaluate", "m.csv"], ["train", "tiny_gate", "--data", "d"]])
def test_no_processes_at_all_is_a_sentence(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--jobs", "0"])
    assert "argument --jobs: a number of 1 or more, not '0'" in capsys.readouterr().err


def test_a_file_compared_with_itself_gains_nothing(scores_file: Callable[..., Path], tmp_path: Path) -> None:
    path = scores_file()
    main(["evaluate", "--compare", str(path), str(path), "--out", str(tmp_path)])
    found = json.loads((tmp_path / "comparison.json").read_text())["subjects"][0]
    assert found["difference"] == found["delong"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.csv", "--out", "o"], "gone.csv cannot be read as a manifest"),
        (["--scores", "gone.csv", "--out", "o"], "scores gone.csv cannot be read"),
        (["--scores", "s.csv", "--robustness", "--out", "o"], "needs the files themselves"),
        (["--compare", "s.csv", "other.csv"], "share no item"),
        (["--compare", "s.csv", "opposite.csv"], "disagree on the label of a"),
    ],
)
def test_wrong_use_is_a_sentence(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("path,label,probability\na,real,0.2\n")
    Path("other.csv").write_text("path,label,probability\nb,real,0.2\n")
    Path("opposite.csv").write_text("path,label,probability\na,fake,0.2\n")
    assert main(["evaluate", *arguments]) == 2
    assert words in capsys.readouterr().err
