"""`clipwarden analyze --detectors` runs exactly the detectors that are named, whichever they are."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipwarden.models import run
from clipwarden.models.detector import DETECTORS
from clipwarden.models.weights import bring, weights_table
from clipwarden.shared.contracts import Branch
from clipwarden.shared.errors import ConfigError, WorkerFault
from tests import media, networks

SHIPPED = {name for name, entry in weights_table().items() if entry.file}
JUDGING = sorted(set(DETECTORS) - {"av_sync_seed"})
"""All but the one that can only be loaded."""

SUBSETS = [tuple(random.Random(seed).sample(JUDGING, 1 + seed % 4)) for seed in range(5)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights for the detectors of the subsets that ship none."""
    folder = tmp_path_factory.mktemp("weights")
    return networks.write_manifest(folder / "weights.toml", {name for s in SUBSETS for name in s} - SHIPPED)


@pytest.fixture(scope="module")
def clip(media_dir: Path) -> Path:
    return media.write_clip(media_dir / "subsets.mp4", media.faces(110), media.speech(4.4))


@pytest.fixture(autouse=True)
def shipped_weights_afterwards() -> Iterator[None]:
    yield
    bring(None)


@pytest.mark.parametrize("names", SUBSETS, ids=",".join)
def test_any_subset_runs_and_nothing_else(
    names: tuple[str, ...], manifest: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--json", "--weights", str(manifest), "--detectors", ",".join(names), str(clip)]
    assert run.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    branches = found["branches"]
    statuses = {d["name"]: (d["status"], d["code"]) for b in branches.values() for d in b["detectors"]}
    assert statuses == dict.fromkeys(names, ("ok", None))
    wanted = {weights_table()[name].branch for name in names}
    assert {Branch(b) for b, view in branches.items() if view["status"] == "ok"} == wanted
    assert {view["code"] for b, view in branches.items() if b not in wanted} <= {"disabled", "no_weights"}


@pytest.mark.parametrize("names", ["nose", "cqcc_cnn,nose"])
def test_a_name_that_is_no_detector_is_refused(names: str, clip: Path) -> None:
    with pytest.raises(ConfigError, match="no such ready detector: nose"):
        run.main(["--detectors", names, str(clip)])


def test_a_detector_without_weights_is_refused_and_those_that_run_are_named(clip: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such ready detector: clip_adapter; ready are .*cqcc_cnn"):
        run.main(["--detectors", "clip_adapter", str(clip)])


def test_brought_weights_are_refused_once_they_are_changed(manifest: Path, clip: Path, tmp_path: Path) -> None:
    name = next(iter(networks.digests_of(manifest)))
    forged = tmp_path / "weights.toml"
    forged.write_text(f'[{name}]\nfile = "model.safetensors"\nsha256 = "sha256:{"0" * 64}"\n', "utf-8")
    (tmp_path / "model.safetensors").write_bytes((manifest.parent / name / "model.safetensors").read_bytes())
    with pytest.raises(WorkerFault, match="were changed"):
        run.main(["--weights", str(forged), "--detectors", name, str(clip)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[nose]\nfile = 'a.safetensors'\nsha256 = 'x'\n", "there is no detector nose"),
        ("[cqcc_cnn]\nfile = 'a.safetensors'\n", "cqcc_cnn needs file and sha256"),
        ("[cqcc_cnn]\nfile = 'a.safetensors'\nsha256 = 'x'\n", "cqcc_cnn: sha256: "),
        (f"[cqcc_cnn]\nfile = 'a'\nsha256 = 'sha256:{'0' * 64}'\nurl = 'b'\n", "cqcc_cnn: url: "),
        ("cqcc_cnn = 1\n", "cannot be read"),
        ("[cqcc_cnn", "cannot be read"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_by_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"weights manifest {path}.*{complaint}"):
        bring(path)
    assert weights_table()["cqcc_cnn"].file == "cqcc_cnn.safetensors"
