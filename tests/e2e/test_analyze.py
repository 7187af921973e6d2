"""`clipwarden analyze` with the installed weights: one process, no services, several files, one of them bad."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLIPWARDEN = [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())", "analyze"]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLIPWARDEN, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run_of_three(talking_head: Path, wav: Path, hostile: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    return analyze("--json", talking_head, hostile["truncated"], wav)


def test_each_file_gets_one_json_object(run_of_three: subprocess.CompletedProcess[str]) -> None:
    clip, bad, sound = map(json.loads, run_of_three.stdout.splitlines())
    assert {name: branch["status"] for name, branch in clip["branches"].items()} == {
        "visual": "ok",
        "audio": "ok",
        "lipsync": "ok",
        "clip": "skipped",
    }
    assert 0 < clip["verdict"]["probability"] < 1
    assert clip["verdict"]["coverage"] == 1
    assert (bad["verdict"], bad["error"]["code"]) == (None, "truncated")
    assert sound["branches"]["visual"]["code"] == "not_applicable"
    assert sound["branches"]["audio"]["status"] == "ok"


def test_a_bad_file_is_one_sentence_and_exit_status_one(run_of_three: subprocess.CompletedProcess[str]) -> None:
    assert run_of_three.returncode == 1
    lines = run_of_three.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("clipwarden: ")
    assert "The file is cut off; upload it again in full." in lines[0]


def test_people_get_a_table(talking_head: Path) -> None:
    run = analyze(talking_head, "--detectors", "forensic_mlp")
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("P(fake)", "visual", "talking head", "disabled", "coverage"))


def test_an_unknown_detector_is_refused(talking_head: Path) -> None:
    run = analyze(talking_head, "--detectors", "nose")
    assert run.returncode == 2
    assert run.stderr.startswith("clipwarden: no such ready detector: nose")
