"""A finished run becomes an installation's weights, its card, and a record of what it has seen."""

import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.training.cli import TRAINERS
from clipwarden.models.training.evaluation.seen import PLACE, shipped
from clipwarden.models.training.install import install
from clipwarden.models.training.measure import measures
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.weights import distributed, file_digest
from clipwarden.shared.errors import ConfigError

DETECTORS = {"forensic_mlp": "visual", "cqcc_cnn": "audio"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    entries = (f'[{name}]\nbranch = "{branch}"\nversion = "1"\n' for name, branch in DETECTORS.items())
    (root / "weights.toml").write_text("\n".join(entries))
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two corpora, each with one file of a known digest."""
    for corpus in ("video", "audio"):
        folder = tmp_path / "data" / corpus
        folder.mkdir(parents=True)
        digest = hashlib.sha256(corpus.encode()).hexdigest()
        (folder / "manifest.csv").write_text(f"path,label,sha256\nx,real,{digest}\nnot learnt from,real,{64 * '0'}\n")
    return tmp_path / "data"


def finished(folder: Path, detector: str) -> RunFolder:
    run = RunFolder(folder, {"seed": 7, "recipe": {"steps": 3}})
    fake = np.arange(20) % 2 == 0
    part = measures(fake, np.arange(20.0), [str(k) for k in range(20)], 0).model_dump()
    run.write_json("metrics.json", {"all": part, "folds": {"0": part}})
    run.write_json("data.json", {"fake": 5, "real": 6, "licences": {"MIT": 11}, "paths": ["x"]})
    (folder / f"{detector}.safetensors").write_bytes(detector.encode())
    return run


@pytest.mark.parametrize(("detector", "corpus"), [("forensic_mlp", "video"), ("cqcc_cnn", "audio")])
def test_what_was_trained_on_is_recorded_with_the_weights(
    detector: str, corpus: str, root: Path, data: Path, tmp_path: Path
) -> None:
    written = install(detector, finished(tmp_path / "run", detector), data, root)
    assert all(path.is_file() and path.is_relative_to(root) for path in written)
    weights = root / "trained" / f"{detector}.safetensors"
    entry = tomllib.loads((root / "weights.toml").read_text())[detector]
    assert (entry["file"], entry["sha256"]) == (weights.name, file_digest(weights))
    assert "--seed 7" in (root / "cards" / f"{detector}.md").read_text()
    [learnt] = shipped([detector], root / PLACE)
    assert learnt.files == {hashlib.sha256(corpus.encode()).hexdigest()[:12]}


@pytest.mark.parametrize("name", [name for name, entry in distributed().items() if entry.file])
def test_what_is_known_of_the_shipped_weights_is_what_their_card_counts(name: str) -> None:
    card = files("clipwarden.models").joinpath(f"cards/{name}.md").read_text("utf-8")
    counted = re.search(r"Trained on (\d+) fake and (\d+) real items", card)
    assert counted
    [learnt] = (t for t in shipped([name]) if t.name == name)
    assert len(learnt.files) == int(counted[1]) + int(counted[2])


def test_nothing_is_written_for_a_detector_that_is_not_listed(root: Path, data: Path, tmp_path: Path) -> None:
    (root / "weights.toml").write_text('[forensic_mlp]\nbranch = "visual"\n')
    with pytest.raises(ConfigError, match="no entry for cqcc_cnn"):
        install("cqcc_cnn", finished(tmp_path / "run", "cqcc_cnn"), data, root)
    assert not list((root / "trained").iterdir())


@pytest.mark.parametrize("name", [name for name, entry in distributed().items() if entry.file])
def test_whatever_is_shipped_can_be_made_anew_by_the_command_of_its_card_and_says_what_it_has_seen(name: str) -> None:
    card = files("clipwarden.models").joinpath(f"cards/{name}.md").read_text("utf-8")
    assert name in TRAINERS
    assert f"    clipwarden train {name} --data DIR" in card
    assert shipped([name])[0].name == name
