"""The program in the README, run as it stands there against the whole system."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import System

README = Path(__file__).parents[2] / "README.md"
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
AGAIN = re.compile(r"again, in (\d+) ms: (.*)")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (example,) = EXAMPLE.findall(README.read_text("utf-8"))
    path = tmp_path / "example.py"
    path.write_text(example, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, talking_head: Path, mute_clip: Path, wav: Path) -> Path:
    made = tmp_path / "clips"
    made.mkdir()
    for path in (talking_head, mute_clip, wav):
        shutil.copy(path, made)
    return made


def test_the_readme_s_program_prints_verdicts_and_then_the_cache_s(
    system: System, program: Path, folder: Path, free_port: int
) -> None:
    url = system.stack.api_url
    secrets = httpx.get(f"{url}/v1/webhooks/secrets", trust_env=False).json()["secrets"]
    arguments = [folder, url, secrets[0]["secret"], str(free_port)]

    done = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    newest = system.client.analyses(limit=6).analyses
    again, first = newest[:3], newest[3:]
    assert sorted(lines) == sorted(f"{each.filename} {each.label} {each.probability}" for each in first)
    assert {each.tag for each in first} == {"example"}
    assert all(each.from_cache for each in again)
    found = AGAIN.fullmatch(last)
    assert found is not None, last
    labels = {each.filename: each.label for each in first}
    assert found[2].split() == [str(labels[path.name]) for path in sorted(folder.iterdir())]
    examined = max(each.finished_at for each in first if each.finished_at) - min(each.created_at for each in first)
    assert int(found[1]) < examined.total_seconds() * 1000 / 4
