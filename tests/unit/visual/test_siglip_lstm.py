"""SIGLIP-LSTM: versions read off the file, windows and smoothing by the original's rules, each frame encoded once."""

import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from clipwarden.models.backbones.siglip import SiglipShape
from clipwarden.models.backbones.siglip_lstm import SiglipLstmNetwork, SiglipLstmShape
from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import save_from
from clipwarden.models.visual.frame_vit import FrameVit
from clipwarden.models.visual.siglip_lstm import NEED, SequenceScores, SiglipLstm
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests.networks import TINY_SIGLIP, pictures, siglip_lstm, write_vit_config


def _load(folder, head=0, dtype="float32", **options):
    """A detector from a plain state dict, as the public files are."""
    path = folder / "SigLip-LSTM.pth"
    torch.save(siglip_lstm(head).state_dict(), path)
    return SiglipLstm.load(WeightFile(path, "sha256:0", options), "cpu", dtype)


@pytest.fixture(scope="module", params=[0, 24], ids=["V3", "V4"])
def head(request):
    return request.param


@pytest.fixture(scope="module")
def detector(head, tmp_path_factory):
    return _load(tmp_path_factory.mktemp("weights"), head)


def _reference(frames, head):
    """Logit of fake of up to 120 frames, by transformers' tower, and torch's LSTM in double precision, one window."""
    state = {n: t.double() for n, t in siglip_lstm(head).state_dict().items()}
    config = SiglipVisionConfig(
        image_size=224,
        patch_size=TINY_SIGLIP.patch_px,
        hidden_size=TINY_SIGLIP.width,
        num_hidden_layers=TINY_SIGLIP.layers,
        num_attention_heads=TINY_SIGLIP.heads,
        intermediate_size=TINY_SIGLIP.inner,
    )
    tower = SiglipVisionModel(config).double().eval()
    prefix = "siglip_backbone."
    tower.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    lstm = torch.nn.LSTM(TINY_SIGLIP.width, 32, 2, batch_first=True, bidirectional=True).double()
    lstm.load_state_dict({n.removeprefix("lstm."): t for n, t in state.items() if n.startswith("lstm.")})
    filled = np.concatenate([frames, np.repeat(frames[:1], 120 - len(frames), axis=0)])
    pixels = torch.from_numpy(filled / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        steps = lstm(tower(pixel_values=pixels).pooler_output[None])[0][0]
        last = torch.cat([steps[-1, :32], steps[0, 32:]])
        for part in ("video_classifier.0", "video_classifier.3") if head else ("video_classifier",):
            last = state[f"{part}.weight"] @ last + state[f"{part}.bias"]
            last = last.clamp(min=0) if part.endswith("0") else last
    return float(last)


def test_the_score_of_a_short_clip_is_that_of_the_original_pass(detector, head):
    frames = pictures(18, 224, seed=30)
    assert detector.predict([frames])[0] == pytest.approx(_reference(frames, head), rel=1e-4, abs=1e-4)


def test_the_score_by_frame_is_that_of_the_clip_up_to_there(detector, head):
    frames = pictures(18, 224, seed=31)
    scores = detector.examine(frames)
    assert scores.version == ("V4" if head else "V3")
    for end in (1, 9, 18):
        expected = 1 / (1 + np.exp(-_reference(frames[:end], head)))
        assert scores.per_frame[end - 1] == pytest.approx(expected, abs=1e-5)
    assert scores.probability == scores.per_frame[-1]


def test_clips_of_unequal_length_share_a_batch(detector):
    a, b = pictures(5, 224, seed=1), pictures(8, 224, seed=2)
    np.testing.assert_allclose(
        detector.predict([a, b]), [detector.predict([a])[0], detector.predict([b])[0]], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(DetectorError, match="at least one frame"):
        detector.predict([a, a[:0]])


def test_each_frame_is_encoded_once(detector, monkeypatch):
    seen = []
    embed = detector._network.embed
    monkeypatch.setattr(detector._network, "embed", lambda x: seen.append(len(x)) or embed(x))
    detector.examine(pictures(20, 224))
    assert sum(seen) == 20


def test_stills_are_judged_by_their_own_head(detector, head):
    shown = pictures(2, 224)
    state = siglip_lstm(head)
    with torch.inference_mode():
        pixels = torch.from_numpy(shown).permute(0, 3, 1, 2) / 127.5 - 1
        expected = state.image_classifier(state.siglip_backbone(pixels)).squeeze(1).numpy()
    np.testing.assert_allclose(detector.predict_stills(shown), expected, rtol=1e-4, atol=1e-4)


def test_smoothing_is_the_mean_over_up_to_ten_frames_behind():
    scores = SequenceScores("V3", 0.5, np.random.default_rng(0).uniform(size=25))
    expected = [scores.per_frame[max(i - 9, 0) : i + 1].mean() for i in range(25)]
    np.testing.assert_allclose(scores.rolling, expected)


def test_consistency_is_one_less_the_mean_step():
    assert SequenceScores("V3", 0.5, np.full(9, 0.4)).consistency_score == 1.0
    assert SequenceScores("V3", 0.5, np.array([0.0, 1.0, 0.0, 1.0])).consistency_score == 0.0
    scores = SequenceScores("V3", 0.5, np.array([0.2, 0.5, 0.4]))
    assert scores.consistency_score == pytest.approx(1 - (0.3 + 0.1) / 2)
    assert scores.score_variance == pytest.approx(np.var([0.2, 0.5, 0.4]))


def test_the_result_has_the_form_of_its_document():
    scores = SequenceScores("V4", 0.8, np.array([0.6, 0.7, 0.8]))
    result = scores.as_seed_json(15.5)
    assert result["prediction"] == "FAKE"
    assert result["confidence"] == pytest.approx(0.8)
    assert set(result["metadata"]) == {
        "model_version",
        "frames_analyzed",
        "video_duration",
        "per_frame_scores",
        "rolling_average_scores",
        "temporal_metrics",
    }
    assert set(result["metadata"]["temporal_metrics"]) == {"score_variance", "consistency_score"}
    first = SequenceScores("V1", 0.5, np.array([0.6, 0.5])).as_seed_json(2.0)
    assert first["prediction"] == "REAL"
    assert set(first["metadata"]) == {"model_version", "frames_analyzed", "video_duration"}


def test_evidence_groups_frames_by_five(detector):
    frames = pictures(22, 224, seed=3)
    view = View.of(frames, np.arange(22) / 10)
    evidence = detector.assess(Clip(views={NEED.key: view}, duration_s=2.2))
    rolling = detector.examine(frames).rolling
    assert [w.score for w in evidence.windows] == pytest.approx([rolling[k : k + 5].mean() for k in range(0, 22, 5)])
    assert evidence.windows[0].start_s == 0.0
    assert evidence.windows[-1].end_s == 2.2
    with pytest.raises(NotApplicable) as skip:
        detector.assess(Clip(views={NEED.key: View.of(frames[:15], np.arange(15) / 10)}, duration_s=1.5))
    assert skip.value.code == SkipCode.TOO_FEW_FRAMES


def test_v1_is_named_by_the_entry_and_v4_by_its_shape(tmp_path):
    assert _load(tmp_path, 0, version="V1").examine(pictures(1, 224)).version == "V1"
    assert _load(tmp_path, 24, version="V4").examine(pictures(1, 224)).version == "V4"


@pytest.mark.parametrize(("head", "version"), [(24, "V3"), (0, "V4"), (0, "V2")])
def test_a_file_of_the_wrong_version_is_refused(tmp_path, head, version):
    with pytest.raises(WorkerFault, match=f"names version {version}"):
        _load(tmp_path, head, version=version)


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("lstm.weight_hh_l0", "no version of SIGLIP-LSTM"),
        ("siglip_backbone.embeddings.patch_embedding.weight", "no version of SIGLIP-LSTM"),
        ("image_classifier.weight", r"missing image_classifier\.weight"),
        ("lstm.weight_ih_l1_reverse", r"missing lstm\.weight_ih_l1_reverse"),
    ],
)
def test_an_incomplete_file_is_refused(tmp_path, gone, why):
    path = tmp_path / "part.pth"
    torch.save({n: t for n, t in siglip_lstm(0).state_dict().items() if n != gone}, path)
    with pytest.raises(WorkerFault, match=why):
        SiglipLstm.load(WeightFile(path, "sha256:0"), "cpu")


def test_bfloat16_keeps_probabilities(tmp_path):
    frames = pictures(16, 224, seed=8)
    a, b = (_load(tmp_path, 24, dtype).examine(frames).per_frame for dtype in ("float32", "bfloat16"))
    assert np.abs(a - b).max() <= 2e-2


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_full_size_siglip_lstm_runs_from_file_to_evidence(tmp_path):
    torch.manual_seed(0)
    network = SiglipLstmNetwork(SiglipLstmShape(SiglipShape(), head=512))
    torch.save(network.state_dict(), tmp_path / "SigLip-LSTM-v4.pth")
    detector = SiglipLstm.load(WeightFile(tmp_path / "SigLip-LSTM-v4.pth", "sha256:0"), "cpu")
    view = View.of(pictures(120, 224), np.arange(120) / 10)
    evidence = detector.assess(Clip(views={NEED.key: view}, duration_s=12.0))
    assert len(evidence.windows) == 24


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_full_size_vit_runs_from_directory_to_evidence(tmp_path):
    torch.manual_seed(0)
    save_from(VitClassifier(VitShape()), tmp_path / "model.safetensors", {})
    write_vit_config(
        tmp_path / "config.json",
        patch_size=16,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
    )
    detector = FrameVit.load(WeightFile(tmp_path / "model.safetensors", "sha256:0"), "cpu")
    boxes = np.tile(np.array([[0, 0, 90, 90]], np.float32), (16, 1))
    view = View.of(pictures(16, 224), np.arange(16) / 4, boxes)
    assert len(detector.assess(Clip(views={detector.spec.needs.frames.key: view}, duration_s=4.0)).windows) == 16
