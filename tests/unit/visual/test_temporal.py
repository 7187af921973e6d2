"""The two detectors over time against their formulas in double precision, and their rules for short clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipwarden.models.backbones.embedders import FrameEmbedder
from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.visual.temporal_3dcnn import Temporal3dCnn, Temporal3dNetwork
from clipwarden.models.visual.temporal_bilstm import BiLstmNetwork, TemporalBiLstm
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests.networks import made, pictures, write_weights

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def analyser(folder):
    return Temporal3dCnn.load(write_weights("temporal_3dcnn", folder), "cpu")


@pytest.fixture(scope="module")
def follower(folder):
    return TemporalBiLstm.load(write_weights("temporal_bilstm", folder), "cpu")


def _clip(need, count, side_px=80):
    boxes = np.tile(np.array([[0, 0, side_px, side_px]], np.float32), (count, 1))
    view = View.of(pictures(max(count, 1), 224, seed=5)[:count], np.arange(count) / 5, boxes)
    return Clip(views={need.key: view}, duration_s=count / 5)


def _bilstm_formula(rows):
    """Logit of one sequence (T, 512), step by step."""
    s = {n: t.double().numpy() for n, t in made("temporal_bilstm").state_dict().items()}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def along(rows, suffix):
        h, c, states = np.zeros(128), np.zeros(128), []
        for row in rows:
            gates = s[f"lstm.weight_ih_l0{suffix}"] @ row + s[f"lstm.bias_ih_l0{suffix}"]
            gates = gates + s[f"lstm.weight_hh_l0{suffix}"] @ h + s[f"lstm.bias_hh_l0{suffix}"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            states.append(h)
        return np.stack(states)

    states = np.concatenate([along(rows, ""), along(rows[::-1], "_reverse")[::-1]], axis=1)
    return s["fc.weight"][0] @ states.mean(axis=0) + s["fc.bias"][0]


def test_the_bilstm_has_the_count_and_names_of_the_public_file():
    shapes = {name: tuple(t.shape) for name, t in BiLstmNetwork().state_dict().items()}
    assert parameter_count(BiLstmNetwork()) == TemporalBiLstm.spec.parameters == 657_665
    assert shapes["lstm.weight_ih_l0_reverse"] == (512, 512)
    assert shapes["lstm.weight_hh_l0"] == (512, 128)
    assert shapes["fc.weight"] == (1, 256)
    assert len(shapes) == 10


def test_the_bilstm_agrees_with_the_formula_whatever_padding_surrounds_a_sequence():
    rng = np.random.default_rng(3)
    lengths, rows = (5, 9, 1), np.abs(rng.normal(size=(3, 9, 512)))
    expected = [_bilstm_formula(r[:n]) for r, n in zip(rows, lengths, strict=True)]
    with torch.inference_mode():
        steps = made("temporal_bilstm")(torch.from_numpy(rows).float(), torch.tensor(lengths)).numpy()
    found = [row[:n].mean() for row, n in zip(steps, lengths, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (steps[0, 5:] == 0).all()


def test_sequences_of_several_clips_share_a_batch(follower):
    a, b = pictures(4, 224, seed=1), pictures(6, 224, seed=2)
    together = follower.predict([a, b])
    np.testing.assert_allclose(together, [follower.predict([a])[0], follower.predict([b])[0]], rtol=1e-4, atol=1e-4)


def test_an_empty_sequence_is_an_error(follower):
    with pytest.raises(DetectorError, match="at least one face"):
        follower.predict([pictures(4, 224), np.zeros((0, 224, 224, 3), np.uint8)])


def test_the_order_of_faces_matters_to_the_bilstm(follower):
    shown = pictures(5, 224, seed=1)
    assert abs(follower.predict([shown])[0] - follower.predict([shown[[2, 0, 4, 1, 3]]])[0]) > 1e-4


@pytest.mark.parametrize(
    ("count", "side_px", "code"),
    [(0, 80, SkipCode.NO_FACE), (3, 80, SkipCode.TOO_FEW_FRAMES), (6, 39, SkipCode.FACE_TOO_SMALL)],
)
def test_clips_that_say_nothing_of_time_are_skipped(follower, count, side_px, code):
    with pytest.raises(NotApplicable) as skip:
        follower.assess(_clip(follower.spec.needs.frames, count, side_px))
    assert skip.value.code == code


def test_the_score_of_a_clip_is_the_logistic_of_the_mean_over_its_windows(follower):
    evidence = follower.assess(_clip(follower.spec.needs.frames, 5))
    logits = [np.log(w.score / (1 - w.score)) for w in evidence.windows]
    assert len(logits) == 5
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-np.mean(logits))), abs=1e-6)


def test_an_entry_without_a_backbone_is_refused(folder):
    weights = write_weights("temporal_bilstm", folder)
    with pytest.raises(WorkerFault, match="must name its backbone"):
        TemporalBiLstm.load(WeightFile(weights.path, weights.digest), "cpu")
    with pytest.raises(WorkerFault, match="no backbone is called frame_vit"):
        TemporalBiLstm.load(
            WeightFile(weights.path, weights.digest, {"backbone": "frame_vit"}, weights.backbone), "cpu"
        )


def test_a_backbone_that_was_exchanged_is_refused(folder, tmp_path):
    weights = write_weights("temporal_bilstm", folder)
    save_from(ResNet18(), tmp_path / "other.safetensors", {})
    other = WeightFile(tmp_path / "other.safetensors", "sha256:other")
    with pytest.raises(WorkerFault, match=r"was fitted to embeddings of sha256:.*; its backbone now is sha256:other"):
        TemporalBiLstm.load(WeightFile(weights.path, weights.digest, weights.options, other), "cpu")


def test_a_file_that_does_not_name_its_backbone_needs_somebody_who_does(folder, tmp_path):
    weights = write_weights("temporal_bilstm", folder)
    save_from(made("temporal_bilstm"), tmp_path / "silent.safetensors", {})

    def load(path, **told):
        return TemporalBiLstm.load(WeightFile(path, "sha256:0", {**weights.options, **told}, weights.backbone), "cpu")

    with pytest.raises(WorkerFault, match=r"silent\.safetensors does not say .* --option fitted_to=sha256:"):
        load(tmp_path / "silent.safetensors")
    for path in (tmp_path / "silent.safetensors", weights.path):
        with pytest.raises(WorkerFault, match=r"was fitted to embeddings of .*sha256:other"):
            load(path, fitted_to="sha256:other")
        load(path, fitted_to=weights.backbone.digest)


def test_a_width_that_is_not_the_backbones_is_refused(folder, tmp_path):
    weights = write_weights("temporal_bilstm", folder)
    save_from(BiLstmNetwork(width=1280), tmp_path / "wide.safetensors", {"backbone": weights.backbone.digest})
    wide = WeightFile(tmp_path / "wide.safetensors", "sha256:0", weights.options, weights.backbone)
    with pytest.raises(WorkerFault, match=r"lstm\.weight_ih_l0 is \(512, 1280\), not \(512, 512\)"):
        TemporalBiLstm.load(wide, "cpu")


def test_lite0_serves_as_a_backbone(folder):
    weights = write_weights("frame_efficientnet_lite0", folder)
    embedder = FrameEmbedder.load("frame_efficientnet_lite0", weights, "cpu")
    assert embedder.embed(pictures(2, 224)).shape == (2, embedder.width) == (2, 1280)


def test_the_3d_network_has_the_count_and_names_of_its_page():
    state = Temporal3dNetwork().state_dict()
    assert parameter_count(Temporal3dNetwork()) == Temporal3dCnn.spec.parameters == 4_741_890
    parents = {n.rpartition(".")[0] for n in state}
    assert parents == {f"conv3d.{k}" for k in (0, 1, 4, 5, 8, 9, 12, 13)} | {"classifier.2", "classifier.4"}
    assert state["conv3d.0.weight"].shape == (64, 3, 3, 7, 7)


def _3d_formula(frames):
    """Fake less real of one clip (16, 224, 224, 3)."""
    s = {n: t.double() for n, t in made("temporal_3dcnn").state_dict().items()}
    x = torch.from_numpy((frames / 255 - MEAN) / STD).permute(3, 0, 1, 2)[None]
    for conv, stride, padding in ((0, (1, 2, 2), (1, 3, 3)), (4, 1, 1), (8, 1, 1), (12, 1, 1)):
        x = F.conv3d(x, s[f"conv3d.{conv}.weight"], s[f"conv3d.{conv}.bias"], stride, padding)
        norm = {
            n: s[f"conv3d.{conv + 1}.{n}"].view(-1, 1, 1, 1) for n in ("running_mean", "running_var", "weight", "bias")
        }
        x = (x - norm["running_mean"]) / torch.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        x = x.clamp(min=0)
        if conv == 0:
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        elif conv < 12:
            x = F.max_pool3d(x, 2)
    hidden = (s["classifier.2.weight"] @ x.mean(dim=(2, 3, 4))[0] + s["classifier.2.bias"]).clamp(min=0)
    real, fake = s["classifier.4.weight"] @ hidden + s["classifier.4.bias"]
    return float(fake - real)


def test_the_3d_network_agrees_with_the_formula(analyser):
    clip = pictures(16, 224, seed=12)
    expected = _3d_formula(clip)
    assert analyser.predict(clip[None])[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_3d_network_survives_bfloat16(folder, analyser):
    clips = pictures(32, 224, seed=13).reshape(2, 16, 224, 224, 3)
    short = Temporal3dCnn.load(write_weights("temporal_3dcnn", folder), "cpu", "bfloat16")
    a, b = (1 / (1 + np.exp(-d.predict(clips))) for d in (analyser, short))
    assert np.abs(a - b).max() <= 2e-2


def test_a_short_clip_repeats_its_last_frame_and_a_shorter_one_is_skipped(analyser):
    need = analyser.spec.needs.frames
    clip = _clip(need, 9)
    filled = np.concatenate([clip.view(need).images, np.repeat(clip.view(need).images[-1:], 7, axis=0)])
    expected = 1 / (1 + np.exp(-analyser.predict(filled[None])[0]))
    assert analyser.assess(clip).score == pytest.approx(expected)
    with pytest.raises(NotApplicable) as skip:
        analyser.assess(_clip(need, 7))
    assert skip.value.code == SkipCode.TOO_FEW_FRAMES


def test_a_clip_of_another_length_is_an_error(analyser):
    with pytest.raises(DetectorError, match="16 frames"):
        analyser.predict(pictures(15, 224)[None])
