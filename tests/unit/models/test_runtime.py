"""A detector computed by onnxruntime says what it says computed by torch, or does not start."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from clipwarden.models.assess import assess, load
from clipwarden.models.detector import detector_class
from clipwarden.models.graphs import network_of
from clipwarden.models.pipeline import local_manifest, pipeline_id
from clipwarden.models.runtime import OnnxNetwork, hand_over
from clipwarden.models.selftest import known_clip
from clipwarden.models.weights import weights_table
from clipwarden.shared.contracts import DetectorState, OutcomeStatus
from clipwarden.shared.errors import WorkerFault
from tests.networks import pictures, write_weights

READY = ("forensic_mlp", "cqcc_cnn")
PREDICTABLE = {"tiny_gate": (3, 256), "frame_vit": (3, 224), "frame_efficientnet_lite0": (3, 224)}


def entry(name, **changed):
    (found,) = (d for d in local_manifest().detectors if d.name == name)
    return found.model_copy(update=changed)


@pytest.mark.parametrize("name", READY)
def test_a_shipped_detector_finds_the_same_in_both_runtimes(name):
    found = []
    for runtime in ("torch", "onnxruntime"):
        loaded = load(entry(name, runtime=runtime), "cpu")
        assert isinstance(network_of(loaded.detector), OnnxNetwork) == (runtime == "onnxruntime")
        result = assess(loaded.entry.branch, known_clip([loaded.entry.needs]), [loaded])
        assert result.status is OutcomeStatus.OK
        found.append(result.detectors[0].evidence)
    for values in zip(*([e.score, *(w.score for w in e.windows)] for e in found), strict=True):
        assert values[0] == pytest.approx(values[1], abs=1e-4)


@pytest.mark.parametrize("name", PREDICTABLE)
def test_a_detector_of_pictures_finds_the_same_in_both_runtimes(tmp_path, name):
    detector, shown = detector_class(name).load(write_weights(name, tmp_path), "cpu"), pictures(*PREDICTABLE[name])
    expected = detector.predict(shown)
    hand_over(name, detector)
    np.testing.assert_allclose(detector.predict(shown), expected, atol=1e-4 * np.abs(expected).max())


def test_the_manifest_says_which_runtime_computes():
    manifest = local_manifest()
    assert {d.name: d.runtime for d in manifest.detectors if d.state is DetectorState.READY} == {
        name: weights_table()[name].runtime for name in weights_table() if entry(name).weights
    }
    assert entry("cqcc_cnn").runtime == "onnxruntime"


def test_another_runtime_is_another_pipeline():
    manifest = local_manifest()
    other = tuple(d.model_copy(update={"runtime": "torch"}) if d.name == "cqcc_cnn" else d for d in manifest.detectors)
    assert pipeline_id(manifest.model_copy(update={"detectors": other})) != pipeline_id(manifest)


def test_a_machine_without_onnxruntime_does_not_take_torch_instead(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WorkerFault, match="onnxruntime is wanted and not installed"):
        load(entry("cqcc_cnn", runtime="onnxruntime"), "cpu")


def test_onnxruntime_computes_in_float32_only():
    with pytest.raises(WorkerFault, match="only in float32"):
        load(entry("cqcc_cnn", runtime="onnxruntime", dtype="bfloat16"), "cpu")


@pytest.mark.parametrize("name", ["av_sync", "siglip_lstm", "clip_adapter", "temporal_bilstm"])
def test_a_detector_of_several_networks_stays_with_torch(tmp_path, name):
    detector = detector_class(name).load(write_weights(name, tmp_path), "cpu")
    with pytest.raises(WorkerFault, match=f"{name} cannot run in onnxruntime"):
        hand_over(name, detector)


def test_a_detector_is_not_handed_over_if_the_runtimes_disagree(tmp_path, monkeypatch):
    detector = detector_class("frame_vit").load(write_weights("frame_vit", tmp_path), "cpu")
    network = network_of(detector)
    monkeypatch.setattr(OnnxNetwork, "forward", lambda _, x: network(x) * 1.001)
    with pytest.raises(WorkerFault, match="does not compute what the network computes"):
        hand_over("frame_vit", detector)
    assert network_of(detector) is network


def test_onnxruntime_uses_as_many_threads_as_torch(monkeypatch):
    seen, threads = [], torch.get_num_threads()
    kept = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: seen.append(a[1]) or kept(*a, **k))
    load(entry("forensic_mlp", runtime="onnxruntime"), "cpu")
    assert [options.intra_op_num_threads for options in seen] == [threads]
