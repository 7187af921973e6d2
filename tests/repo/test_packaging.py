"""The wheel holds the tree, nothing more, and works installed as it does from the checkout.

The tree is packaged by a map from folder to package: a new folder that is missing from the map works in the
checkout and is absent from the wheel, and setuptools ships deleted modules out of an old `build/`. Both show here.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("api", "models", "shared", "workers")
NOT_INSTALLED = {".typings", "__pycache__"}
COMMAND_LINE = "import sys; from clipwarden.shared.cli import main; sys.exit(main())"
PROBE = "import clipwarden.models, pathlib; print(pathlib.Path(clipwarden.models.__path__[0]).resolve())"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what is or would be tracked, as a fresh clone has it."""
    copy = tmp_path_factory.mktemp("clone")
    shown = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, shown.stdout.split("\0")):
        source, target = ROOT / name, copy / name
        if source.is_file() and name.split("/")[0] not in NOT_INSTALLED:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return copy


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, tree)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a fresh environment with the wheel in it and this environment's other packages beside it."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    pip("install", "--no-deps", "--no-compile", "--no-index", "--target", packages, wheel)
    others = "\n".join(site.getsitepackages())
    (packages / "others.pth").write_text(others, "utf-8")  # the paths only: .pth files in them are not read
    return python


def pip(*arguments):
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def run(*words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, words)], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_every_file_of_the_layers_and_nothing_more(tree, wheel):
    expected = {
        f"clipwarden/{path.relative_to(tree)}"
        for layer in LAYERS
        for path in (tree / layer).rglob("*")
        if path.is_file()
    }
    found = {name for name in names(wheel) if ".dist-info/" not in name}
    assert sorted(expected - found) == []
    assert sorted(found - expected) == []


def test_every_layer_is_typed_and_carries_its_data(wheel):
    found = names(wheel)
    assert {f"clipwarden/{layer}/py.typed" for layer in LAYERS} <= found
    assert "clipwarden/models/weights.toml" in found
    for kind in (".safetensors", ".json", ".md"):
        assert any(name.startswith("clipwarden/models/") and name.endswith(kind) for name in found), kind


def test_the_wheel_has_the_licence_and_no_bare_package(wheel):
    top = {name.split("/")[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"clipwarden"}
    assert any(name.endswith("/licenses/LICENSE") for name in names(wheel))


def test_every_folder_of_modules_is_in_the_package_list(tree):
    config = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))
    packages = set(config["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(tree) for layer in LAYERS for path in (tree / layer).rglob("*.py")}
    assert {".".join(("clipwarden", *folder.parts)) for folder in folders} == packages


def test_an_installed_wheel_runs_from_its_own_files(installed):
    where = Path(run(installed, "-c", PROBE).strip())
    assert where.is_relative_to(installed.parent.parent.resolve())


def test_an_installed_wheel_lists_the_detectors_of_the_checkout(installed):
    command = ("-c", COMMAND_LINE, "models", "list", "--json")
    of_wheel, of_checkout = (json.loads(run(python, *command)) for python in (installed, sys.executable))
    assert of_wheel == of_checkout
    assert {entry["name"] for entry in of_wheel if entry["state"] == "ready"} >= {"forensic_mlp", "cqcc_cnn"}


def test_an_installed_wheel_verifies_its_weights(installed):
    code = (
        "from clipwarden.models.weights import *; from clipwarden.shared.contracts import DetectorState as S;"
        "print([verified(n).digest for n, e in weights_table().items() if state_of(e) is S.READY])"
    )
    assert run(installed, "-c", code).count("sha256:") >= 2
