"""What may import what, and what no file of the tree may mention."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "numpy",
    "torch",
    "cv2",
    "librosa",
    "scipy",
    "av",
    "obstore",
    "transformers",
    "sklearn",
    "clipwarden.models",
    "clipwarden.workers",
}
MACHINE_PATHS = {
    "home": r"(?<![\w.~-])/(?:home|Users|root)/[\w.-]+",
    "workplace": r"(?<![\w./-])/(?:work|mnt|scratch|data)/[\w.-]+",
    "temporary": r"(?<![\w./-])/(?:var/folders|tmp/[\w-]+/)",
    "installation": r"(?<![\w./-])/opt/(?!clipwarden)[\w.-]+",
}
REGISTRY_HOSTS = (
    r"(?i)\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|pytorch\.org|anaconda\.(?:org|com)|artifactory|nexus)\b"
)
ADDRESSES = r"(?i)(?:index-url|find-links|trusted-host)\s*[= ]\s*\S+"


def listed(*arguments):
    shown = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in shown.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts():
    """Every text file that is or would be tracked, without this one, which must name what it forbids."""
    for path in listed("-co", "--exclude-standard"):
        content = path.read_bytes()
        if path != Path(__file__).resolve() and b"\0" not in content:
            yield path.relative_to(ROOT), content.decode("utf-8")


def mentions(patterns):
    return [
        f"{path}: {found[0]}" for path, text in texts() for pattern in patterns for found in re.finditer(pattern, text)
    ]


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["clipwarden.api.app", "clipwarden.api.commands", "clipwarden.shared.cli"])
def test_the_thin_side_loads_no_maths(module):
    code = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert module in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("module", ["clipwarden.models.fusion.verdict", "clipwarden.workers.fusing"])
def test_fusion_loads_no_networks(module):
    code = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) & {"torch", "librosa", "transformers"} == set()


def test_what_makes_callbacks_loads_no_maths():
    code = "import clipwarden.workers.notifier, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) & (HEAVY - {"clipwarden.workers"}) == set()


def test_no_file_names_a_path_of_one_machine():
    assert mentions(MACHINE_PATHS.values()) == []


def test_no_file_names_a_package_registry():
    assert mentions([REGISTRY_HOSTS, ADDRESSES]) == []


@pytest.mark.parametrize(
    ("pattern", "caught"),
    [
        (MACHINE_PATHS["home"], "cache = '/home/ann/models'"),
        (MACHINE_PATHS["workplace"], "see /work/notes"),
        (MACHINE_PATHS["temporary"], "/tmp/venv/bin/python"),
        (MACHINE_PATHS["installation"], "/opt/conda/bin"),
        (REGISTRY_HOSTS, "https://files.pythonhosted.org/packages"),
        (ADDRESSES, "--index-url https://example.net/simple"),
    ],
)
def test_the_patterns_catch_what_they_are_for(pattern, caught):
    assert re.search(pattern, caught)


def test_nothing_is_tracked_that_is_generated_or_too_large():
    tracked = listed("-co", "--exclude-standard")
    assert [
        p for p in tracked if p.suffix in {".pyc", ".pt", ".pth", ".pkl", ".joblib", ".onnx", ".mp4", ".flac"}
    ] == []
    weights = {p: p.stat().st_size for p in tracked if p.suffix == ".safetensors"}
    assert sum(weights.values()) < 60_000_000
    assert [p for p in tracked if p.stat().st_size > 2_000_000 and p not in weights] == []
