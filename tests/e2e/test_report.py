"""`clipwarden report` with the installed weights: on a file examined in one process, and on what workers found."""

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import System

CLIPWARDEN = [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())", "report"]


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLIPWARDEN, *map(str, arguments)], capture_output=True, text=True, check=False)


def told(page: str) -> list[str]:
    """What was judged and how: headings, scores, bars and pictures, without times of computing and ids."""
    scores = re.findall(r'<td class="number">([+-]?\d\.\d+)</td>', page)
    return [
        *re.findall(r"<h[23]>([^<]+)</h", page),
        *scores,
        *re.findall(r'<svg viewBox.*? aria-label="([^"]+)"', page),
    ]


def test_a_file_is_reported_alike_with_and_without_services(system: System, talking_head: Path, tmp_path: Path) -> None:
    analysis_id = system.submit(talking_head)
    out = tmp_path / "report.html"
    run = report(talking_head, "--out", out)
    system.wait(analysis_id)
    here, there = out.read_text("utf-8"), system.client.report(analysis_id)

    assert (run.returncode, run.stdout) == (0, f"wrote {out}\n"), run.stderr
    assert told(here) == told(there)
    assert len(told(here)) > 12
    assert [page.count("data:image/") for page in (here, there)] == [here.count("<img ")] * 2
    assert all("held out of the fit" in page for page in (here, there))
    assert "Examined in one process" in here
    assert analysis_id in there


def test_a_file_that_cannot_be_examined_is_one_sentence(hostile: dict[str, Path], tmp_path: Path) -> None:
    run = report(hostile["truncated"], "--out", tmp_path / "report.html")

    assert run.returncode == 2
    assert run.stderr.startswith("clipwarden: The file is cut off; upload it again in full.")
    assert not (tmp_path / "report.html").exists()
