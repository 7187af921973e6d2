"""`clipwarden doctor` tells what is missing and fails only for what the demo needs."""

import json
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from clipwarden.shared.errors import Unavailable
from clipwarden.shared.local import doctor
from clipwarden.shared.local.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[3]


class BrokenServer(EmbeddedValkey):
    def start(self) -> None:
        raise Unavailable("no room for it")


def test_every_extra_has_a_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.PURPOSES) == {"", *project["optional-dependencies"]}


def test_every_declared_package_belongs_to_exactly_one_line():
    for requirement in map(Requirement, requires("clipwarden") or []):
        lines = [extra for extra in doctor.PURPOSES if doctor._belongs(requirement, extra)]
        assert len(lines) == 1, requirement


def test_a_missing_and_an_old_package_are_named_with_the_version_wanted():
    assert doctor._lack(Requirement("no-such-package~=1.2; extra == 'api'")) == ["no-such-package~=1.2"]
    (old,) = doctor._lack(Requirement("celery>=99"))
    assert old.startswith("celery>=99 (here ")
    assert doctor._lack(Requirement("celery>=5")) == []


def test_a_server_that_does_not_start_is_told_with_its_reason():
    check = doctor.check_server("Redis server", "", BrokenServer)
    assert (check.ok, check.needed, check.remedy) == (False, True, "no room for it")


def test_a_server_named_by_the_settings_is_not_started():
    assert doctor.check_server("Redis server", "redis://elsewhere", BrokenServer).ok


def test_a_full_disk_is_told_before_the_state_directory_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_NEEDED_GB", 1e9)
    check = doctor.check_disk(tmp_path / "not" / "yet")
    assert (check.ok, check.needed) == (False, True)
    assert "CLIPWARDEN_STATE_DIR" in check.remedy


@pytest.mark.parametrize(("needed", "status"), [(True, 1), (False, 0)])
def test_only_what_the_demo_needs_makes_it_fail(needed, status, monkeypatch, capsys):
    findings = [doctor.Check("Python", True, True, "3.11"), doctor.Check("thing", False, needed, "gone", "get it")]
    monkeypatch.setattr(doctor, "examine", lambda _: iter(findings))
    assert doctor.main(["--json"]) == status
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "thing",
        "ok": False,
        "needed": needed,
        "found": "gone",
        "remedy": "get it",
    }


def test_this_machine_can_run_the_demo(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CLIPWARDEN_STATE_DIR", str(tmp_path))
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    assert "detectors ready" in shown
    assert "Everything the demo needs is here" in shown
