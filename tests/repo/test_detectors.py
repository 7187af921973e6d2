"""The table of detectors, the weights manifest, the weights files, the cards and the catalogue hold together."""

from importlib.resources import files
from pathlib import Path

import pytest
from safetensors import safe_open

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.weights import file_digest, weights_path, weights_table

MODELS = Path(str(files("clipwarden.models")))
PLANNED = {
    "tiny_gate": "visual",
    "frame_resnet18": "visual",
    "frame_efficientnet_b4": "visual",
    "frame_efficientnet_lite0": "visual",
    "frame_stats": "visual",
    "forensic_mlp": "visual",
    "frame_vit": "visual",
    "temporal_bilstm": "visual",
    "temporal_3dcnn": "visual",
    "siglip_lstm": "visual",
    "cqcc_cnn": "audio",
    "mel_resnet18": "audio",
    "speech_stats": "audio",
    "lipfd": "lipsync",
    "lipfd_fixed": "lipsync",
    "av_sync": "lipsync",
    "av_sync_seed": "lipsync",
    "clip_adapter": "clip",
}
TRAINED = [name for name in DETECTORS if weights_table()[name].file]
SECTIONS = ("What it is", "Data and licences", "Recipe", "Figures", "Known failures", "Use")


def test_every_planned_detector_is_in_the_manifest_under_its_branch():
    assert {name: entry.branch.value for name, entry in weights_table().items()} == PLANNED


def test_every_weights_file_has_a_detector_that_reads_it():
    assert {name for name, entry in weights_table().items() if entry.file} <= set(DETECTORS) <= set(weights_table())


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_agrees_with_its_manifest_entry(name):
    spec, entry = detector_class(name).spec, weights_table()[name]
    assert (spec.name, spec.version, spec.branch) == (name, entry.version, entry.branch)
    assert spec.parameters == entry.parameters


@pytest.mark.parametrize("name", TRAINED)
def test_a_weights_file_has_the_recorded_digest_and_count(name):
    entry = weights_table()[name]
    path = weights_path(entry)
    assert path is not None
    assert file_digest(path) == entry.sha256
    buffers = ("scaler_mean", "scaler_scale", "running_mean", "running_var", "num_batches_tracked")
    with safe_open(path, "np") as tensors:
        sizes = [tensors.get_tensor(key).size for key in tensors.keys() if not key.endswith(buffers)]
    assert sum(sizes) == entry.parameters


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_has_a_card_with_its_count_and_licences(name):
    card = (MODELS / "cards" / f"{name}.md").read_text("utf-8")
    assert all(f"\n## {section}\n" in card for section in SECTIONS)
    assert f"`{name}`" in card
    assert f"{weights_table()[name].parameters:,}" in card


@pytest.mark.parametrize("name", DETECTORS)
def test_a_card_has_figures_exactly_if_there_are_weights(name):
    card = (MODELS / "cards" / f"{name}.md").read_text("utf-8")
    assert ("| all, pooled |" in card) == (f"clipwarden train {name}" in card) == (name in TRAINED)
    assert ("there are no weights yet" in card) == (name not in TRAINED)


def test_there_is_no_card_or_weights_file_without_a_detector():
    assert {p.stem for p in (MODELS / "cards").glob("*.md")} == set(DETECTORS) | {"faces", "fusion"}
    assert {p.name for p in (MODELS / "trained").iterdir()} == {weights_table()[n].file for n in TRAINED}


def test_every_feature_of_the_catalogue_is_reported_by_its_detector():
    planned = {f.name: (f.detector, f.branch) for f in CATALOGUE.values()}
    assert set(planned.values()) == {(name, entry.branch) for name, entry in weights_table().items()}
    declared = {
        f: (name, detector_class(name).spec.branch) for name in DETECTORS for f in detector_class(name).spec.features
    }
    assert declared == {f: whose for f, whose in planned.items() if whose[0] in DETECTORS}


@pytest.mark.parametrize("name", [name for name in weights_table() if "backbone" in weights_table()[name].options])
def test_a_backbone_is_a_detector_of_the_same_branch(name):
    entry = weights_table()[name]
    assert weights_table()[entry.options["backbone"]].branch is entry.branch


def test_what_cannot_run_says_so():
    for name, entry in weights_table().items():
        assert entry.obtain.startswith("Cannot run in this version: ") == (name not in DETECTORS)
