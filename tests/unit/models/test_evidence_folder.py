"""`clipwarden analyze --evidence DIR` writes what the service would keep, a folder for each file."""

import json
import shutil
from pathlib import Path

import cv2
import pytest

from clipwarden.models import run
from clipwarden.shared.errors import ConfigError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, talking_head: Path) -> Path:
    """Two files of one name, and one that is no media."""
    root = tmp_path_factory.mktemp("files")
    for folder, source in (("a", talking_head), ("b", talking_head)):
        (root / folder).mkdir()
        shutil.copy(source, root / folder / "clip.mp4")
    (root / "bad.mp4").write_bytes(b"nothing")
    files = [root / "a" / "clip.mp4", root / "b" / "clip.mp4", root / "bad.mp4"]
    chosen = ["--json", "--detectors", "forensic_mlp,cqcc_cnn", "--evidence", str(root / "out" / "here")]
    assert run.main([*chosen, *map(str, files)]) == 1
    return root / "out" / "here"


def test_each_file_has_its_own_folder_and_a_refused_one_has_none(written: Path) -> None:
    assert sorted(p.name for p in written.iterdir()) == ["clip.mp4", "clip.mp4-2"]


def test_the_files_are_those_that_the_json_names(written: Path) -> None:
    place = written / "clip.mp4"
    told = json.loads((place / "analysis.json").read_text("utf-8"))
    named = {
        f"{branch}/{detector['name']}/{one['name']}": one["bytes"]
        for branch, found in told["branches"].items()
        for detector in found["detectors"]
        for one in detector["evidence"]
    }
    there = {p.relative_to(place).as_posix(): p.stat().st_size for p in place.rglob("*") if p.is_file()}
    assert there.pop("analysis.json")
    assert there == named
    assert {name.split("/")[1] for name in named} == {"forensic_mlp", "cqcc_cnn"}
    for name in named:
        if not name.endswith(".json"):
            assert cv2.imread(str(place / name), cv2.IMREAD_UNCHANGED) is not None


def test_a_detector_says_what_it_left_out_and_the_facts_beside_its_score(written: Path) -> None:
    told = json.loads((written / "clip.mp4" / "analysis.json").read_text("utf-8"))
    (audio,) = told["branches"]["audio"]["detectors"]
    assert audio["facts"]["heard_s"] == pytest.approx(3, abs=0.1)
    assert audio["gaps"] == []
    assert not {"looks", "curves", "exhibits"} & audio.keys()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, still: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="evidence cannot be written into"):
        run.main(["--detectors", "forensic_mlp", "--evidence", str(tmp_path / "file"), str(still)])
