"""`make` explains itself, hands paths on whole, and sets up an environment that matches what is pinned."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TARGETS = {"help", "demo", "up", "test", "test-long", "drill", "check", "bench"}
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
RECORDER = """
import json, os, sys
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[1]), *sys.argv[2:]]) + "\\n")
"""


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "deploy" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose environment holds programs that record how they were called."""
    place = tmp_path / "a checkout"
    (place / "deploy").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "deploy/bootstrap.py"):
        shutil.copy(ROOT / name, place / name)
    programs = place / ".venv" / "bin"
    programs.mkdir(parents=True)
    (place / "recorder.py").write_text(RECORDER)
    for name in ("clipwarden", "pytest", "python", "ruff", "mypy", "lint-imports", "deno"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{place}/recorder.py" "$0" "$@"\n')
        (programs / name).chmod(0o755)
    for name, value in {"ROOT": place, "VENV": place / ".venv", "LOCK": place / "requirements.lock"}.items():
        monkeypatch.setattr(bootstrap, name, value)
    monkeypatch.setattr(bootstrap, "STAMP", place / ".venv" / "clipwarden-stamp")
    bootstrap.STAMP.write_text(bootstrap.stamp(), encoding="utf-8")
    return place


def make(place: Path, *words: str) -> list[list[str]]:
    """Calls that the target made, in order."""
    record = place / "record"
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"CLIP", "MAKEFLAGS"}},
        "RECORD": str(record),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run(["make", *words], cwd=place, check=True, env=environment, capture_output=True)
    return [json.loads(line) for line in record.read_text().splitlines()]


def test_help_says_what_every_target_does():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    described = dict(re.findall(r"^  make (\S+)\s+(\S.*)$", shown, re.MULTILINE))
    assert set(described) >= TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(described) == set(phony[1].split())


@pytest.mark.parametrize("target", sorted(TARGETS - {"help"}))
def test_every_target_makes_the_environment_ready_first(target):
    planned = subprocess.run(["make", "-n", target], cwd=ROOT, env=ALONE, capture_output=True, text=True, check=True)
    assert planned.stdout.splitlines()[0] == "python3 deploy/bootstrap.py"


@pytest.mark.parametrize("target", ["test", "test-long"])
def test_both_kinds_of_tests_get_a_browser_and_one_thread_each(target):
    planned = subprocess.run(["make", "-n", target], cwd=ROOT, env=ALONE, capture_output=True, text=True, check=True)
    _, browser, tests = planned.stdout.splitlines()
    assert browser.endswith("python deploy/chromium.py")
    assert re.match(r"OMP_NUM_THREADS=1 \S+pytest\b", tests)


@pytest.mark.parametrize("clip", ["my file.mp4", "it's.mp4", 'a "b" ; true.mp4', "-x &.mp4", "ünï.mp4"])
def test_demo_hands_the_clip_on_as_one_word(checkout, clip):
    assert make(checkout, "demo", f"CLIP={clip}") == [["clipwarden", "demo", clip]]


def test_demo_without_a_clip_names_none(checkout):
    assert make(checkout, "demo") == [["clipwarden", "demo"]]


def test_ci_runs_the_checks_and_the_tests(checkout):
    (checkout / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    planned = make(checkout, "check", "test")
    assert [call[0] for call in planned] == [
        "ruff",
        "ruff",
        "mypy",
        "lint-imports",
        "deno",
        "deno",
        "deno",
        "python",
        "pytest",
    ]
    assert "make check test" in (checkout / ".ci" / "run").read_text()
    assert os.access(checkout / ".ci" / "run", os.X_OK)


def test_an_environment_is_stale_when_what_it_was_made_from_changes(checkout, bootstrap):
    assert bootstrap.is_ready()
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("another==1\n")
    assert not bootstrap.is_ready()


def test_a_set_up_cut_short_is_not_taken_for_ready(checkout, bootstrap):
    bootstrap.STAMP.unlink()
    assert not bootstrap.is_ready()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "said"),
    [
        ("win32", "AMD64", ("", ""), "WSL 2"),
        ("darwin", "x86_64", ("", ""), "Apple silicon"),
        ("linux", "armv7l", ("glibc", "2.36"), "x86_64 or aarch64"),
        ("linux", "x86_64", ("", ""), "glibc 2.28"),
        ("linux", "x86_64", ("glibc", "2.17"), "glibc 2.28"),
    ],
)
def test_a_platform_without_builds_is_refused_with_the_way_out(bootstrap, system, machine, libc, said):
    with pytest.raises(bootstrap.Refusal, match=said):
        bootstrap.refuse_platform(system, machine, libc)


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [("linux", "x86_64", ("glibc", "2.36")), ("linux", "aarch64", ("glibc", "2.28")), ("darwin", "arm64", ("", ""))],
)
def test_a_platform_with_builds_is_accepted(bootstrap, system, machine, libc):
    bootstrap.refuse_platform(system, machine, libc)


def test_a_launcher_that_does_not_run_the_right_python_is_passed_over(bootstrap, tmp_path):
    launcher = tmp_path / "python3.11"
    launcher.write_text("#!/bin/sh\necho 'version not installed' >&2; exit 127\n")
    launcher.chmod(0o755)
    assert bootstrap.find_python(str(tmp_path)) is None
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    assert bootstrap.find_python(str(tmp_path)) == str(launcher)


def test_a_wrong_python_without_the_right_one_is_told_what_to_install(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "PYTHON", (3, 99))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(bootstrap.Refusal, match=r"apt-get install python3\.11 python3\.11-venv"):
        bootstrap.use_right_python()


def test_the_lock_pins_every_package_that_is_asked_for():
    pins = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, pinned = line.partition("==")
            pins[canonicalize_name(name)] = pinned
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, asked):
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pinned), f"{requirement} against {pinned}"


def test_the_set_up_installs_every_extra(bootstrap):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(bootstrap.EXTRAS.split(",")) == set(project["optional-dependencies"])
    assert bootstrap.TORCH in project["optional-dependencies"]["worker"]
