"""A weights file is used only if its digest is the manifest's; the list tells the truth about every detector."""

import json
import shutil
import tomllib

import pytest

from clipwarden.models import listing, pipeline, weights
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import restricted
from clipwarden.models.training.install import with_file
from clipwarden.models.weights import (
    WeightsEntry,
    bring,
    file_digest,
    state_of,
    verified,
    weights_path,
    weights_table,
)
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import DetectorState
from clipwarden.shared.errors import ConfigError, WorkerFault

MANIFEST = """# kept

[first]
branch = "audio"
file = "old.safetensors"
sha256 = "sha256:old"

[second]
branch = "visual"
"""


@pytest.fixture
def entry():
    """The installed entry of a ready detector."""
    return weights_table()["cqcc_cnn"]


def _pretend(monkeypatch, entry):
    monkeypatch.setattr(weights, "weights_table", lambda: {"cqcc_cnn": entry})


def test_installed_weights_have_the_digest_of_the_manifest(entry):
    found = verified("cqcc_cnn")
    assert found.digest == entry.sha256 == file_digest(found.path)


def test_a_changed_file_is_not_used(monkeypatch, entry):
    _pretend(monkeypatch, entry.model_copy(update={"sha256": f"sha256:{'1' * 64}"}))
    with pytest.raises(WorkerFault, match="were changed"):
        verified("cqcc_cnn")


def test_a_pipeline_that_asks_for_other_weights_is_refused():
    with pytest.raises(WorkerFault, match="the pipeline asks for"):
        verified("cqcc_cnn", f"sha256:{'2' * 64}")


def test_a_missing_file_says_how_to_get_it(monkeypatch, entry):
    gone = entry.model_copy(update={"file": "gone.safetensors"})
    _pretend(monkeypatch, gone)
    assert weights_path(gone) is None
    assert state_of(gone) is DetectorState.NO_WEIGHTS
    with pytest.raises(WorkerFault, match="clipwarden train cqcc_cnn"):
        verified("cqcc_cnn")


def test_a_detector_on_standby_takes_part_only_where_it_is_named(monkeypatch, entry):
    table = weights_table() | {"cqcc_cnn": entry.model_copy(update={"standby": True})}
    monkeypatch.setattr(pipeline, "weights_table", lambda: table)
    states = [{d.name: d.state for d in m.detectors} for m in (local_manifest(), local_manifest(["cqcc_cnn"]))]
    assert [found["cqcc_cnn"] for found in states] == [DetectorState.DISABLED, DetectorState.READY]
    assert states[0]["speech_stats"] is states[1]["speech_stats"] is DetectorState.READY
    chosen = restricted(local_manifest({"cqcc_cnn"}), frozenset({"cqcc_cnn"}))
    assert [d.name for d in chosen.detectors if d.state is DetectorState.READY] == ["cqcc_cnn"]


def test_weights_that_somebody_brings_are_not_on_standby(monkeypatch, tmp_path, entry):
    monkeypatch.setattr(weights, "distributed", lambda: {"cqcc_cnn": entry.model_copy(update={"standby": True})})
    shutil.copyfile(weights_path(entry), tmp_path / "own.safetensors")
    manifest = tmp_path / "weights.toml"
    manifest.write_text(f'[cqcc_cnn]\nfile = "own.safetensors"\nsha256 = "{entry.sha256}"\n', "utf-8")
    bring(manifest)
    try:
        assert state_of(weights_table()["cqcc_cnn"]) is DetectorState.READY
    finally:
        monkeypatch.undo()
        bring(None)


def test_an_entry_takes_no_unknown_field(entry):
    with pytest.raises(ValueError, match="Extra inputs"):
        WeightsEntry.model_validate({**entry.model_dump(), "url": "https://example.org"})


def test_the_list_has_every_detector_with_its_state(capsys):
    assert main(["models", "list", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found.keys() == weights_table().keys() | {"faces"}
    assert {row["state"] for row in found.values()} <= {"ready", "no_weights", "disabled"}
    assert found["cqcc_cnn"]["state"] == "ready"
    assert found["clip_adapter"]["state"] == "no_weights"
    assert set(found["lipfd"]) == {"name", "branch", "state", "version", "licence", "parameters", "obtain"}


def test_the_table_names_every_detector(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert listing.main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in weights_table())


def test_recording_a_file_changes_only_its_own_entry():
    changed = with_file(MANIFEST, "first", "new.safetensors", "sha256:new")
    assert changed == MANIFEST.replace("old.safetensors", "new.safetensors").replace("sha256:old", "sha256:new")
    last = tomllib.loads(with_file(MANIFEST, "second", "b.safetensors", "sha256:b"))
    assert last["second"] == {"branch": "visual", "file": "b.safetensors", "sha256": "sha256:b"}
    assert last["first"] == tomllib.loads(MANIFEST)["first"]


def test_recording_a_file_of_an_unknown_detector_is_refused():
    with pytest.raises(ConfigError, match="no entry for third"):
        with_file(MANIFEST, "third", "c.safetensors", "sha256:c")
