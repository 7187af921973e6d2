"""LipFD as published: its formula, its windows, its result, and the clips that it does not judge."""

import copy
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from clipwarden.models.backbones.clip import ClipTower
from clipwarden.models.backbones.resnet50 import ResNetTrunk
from clipwarden.models.checkpoint import save_from, settle
from clipwarden.models.lipsync.lipfd import NEED, SOUND, LipFd
from clipwarden.models.lipsync.lipfd_input import columns, joined, mel_picture, seen
from clipwarden.models.lipsync.lipfd_windows import LipFdScores, window_rows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable
from tests.media import silence, speech
from tests.networks import OPTIONS, TINY_LIPFD, made, pictures, telling, write_weights

RATE_HZ = SOUND.sample_rate_hz


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights("lipfd", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def detector(weights):
    return LipFd.load(weights, "cpu")


@pytest.fixture(scope="module")
def few(weights):
    """The detector, told to judge two windows."""
    return LipFd.load(WeightFile(weights.path, "sha256:0", {**weights.options, "n_extract": "2"}), "cpu")


@pytest.fixture(scope="module")
def shown():
    """Nine frames, their sound, and the windows that the published program makes of three stretches of them."""
    frames, wave = pictures(9, 500, seed=41), speech(0.8, seed=5)
    sound = mel_picture(wave.astype(np.float32) / 32768, RATE_HZ)
    windows = []
    for start in (0, 2, 4):
        first, last = columns(start, 9, sound.shape[1])
        windows.append(joined(sound[:, first:last], frames[start : start + 5]))
    return frames, wave, np.stack(windows)


def _clip(frames, wave, numbers=None, duration_s=None):
    numbers = np.arange(len(frames)) if numbers is None else np.asarray(numbers)
    view = View.of(frames, numbers / 25, frames=numbers.astype(np.int64))
    sounds = {RATE_HZ: Sound.whole(wave)} if len(wave) else {}
    return Clip(views={NEED.key: view}, sounds=sounds, duration_s=duration_s or len(frames) / 25)


def _norm(x, s, name):
    scale = s[f"{name}.weight"] / torch.sqrt(s[f"{name}.running_var"] + 1e-5)
    return (x - s[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + s[f"{name}.bias"][:, None, None]


def _trunk(x, s):
    """ResNet's formula, by the names of its file; one block a stage."""
    x = F.relu(_norm(F.conv2d(x, s["conv1.weight"], stride=2, padding=3), s, "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        b, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        y = F.relu(_norm(F.conv2d(x, s[f"{b}.conv1.weight"]), s, f"{b}.bn1"))
        y = F.relu(_norm(F.conv2d(y, s[f"{b}.conv2.weight"], stride=stride, padding=1), s, f"{b}.bn2"))
        y = _norm(F.conv2d(y, s[f"{b}.conv3.weight"]), s, f"{b}.bn3")
        x = F.relu(y + _norm(F.conv2d(x, s[f"{b}.downsample.0.weight"], stride=stride), s, f"{b}.downsample.1"))
    return x.mean(dim=(2, 3))


_PLACES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
}
_LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
_LAYER |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


def _hub_clip(s):
    """Hugging Face's CLIP with a projection, in double precision, with the numbers of OpenAI's names."""
    tower = TINY_LIPFD.tower
    sizes = {"hidden_size": tower.width, "intermediate_size": tower.inner, "num_hidden_layers": tower.layers}
    sizes |= {"num_attention_heads": tower.heads, "patch_size": tower.patch_px, "projection_dim": tower.embedding}
    theirs = {hub: s[ours] for ours, hub in _PLACES.items()}
    for of in ("weight", "bias"):
        theirs |= {f"pre_layrnorm.{of}": s[f"ln_pre.{of}"], f"post_layernorm.{of}": s[f"ln_post.{of}"]}
        for k in range(tower.layers):
            ours, hub = f"transformer.resblocks.{k}", f"encoder.layers.{k}"
            theirs |= {f"{hub}.{b}.{of}": s[f"{ours}.{a}.{of}"] for a, b in _LAYER.items()}
            parts = s[f"{ours}.attn.in_proj_{of}"].chunk(3)
            theirs |= {f"{hub}.self_attn.{p}_proj.{of}": t for p, t in zip("qkv", parts, strict=True)}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=224, **sizes)).double().eval()
    named = {f"vision_model.{name}": tensor for name, tensor in theirs.items()}
    missing = model.load_state_dict({**named, "visual_projection.weight": s["proj"].T}, strict=False)
    assert set(missing.missing_keys) <= {"vision_model.embeddings.position_ids"}
    assert not missing.unexpected_keys
    return model


def _below(state, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@torch.inference_mode()
def _reference(windows):
    """Logits by the published formula in double precision."""
    state = {n: t.double() for n, t in made("lipfd").state_dict().items()}
    clip, trunk = _hub_clip(_below(state, "encoder.visual.")), _below(state, "backbone.")
    logits = []
    for window in windows:
        picture, crops = (part.double() for part in seen(window[None], torch.device("cpu"), torch.float32))
        whole = clip(F.conv2d(picture, state["conv1.weight"], state["conv1.bias"], stride=5)).image_embeds[0]
        frames = []
        for frame in crops[0]:
            parts = [torch.cat([embedding, whole]) for embedding in _trunk(frame, trunk)]
            weights = [torch.sigmoid(trunk["get_weight.0.weight"][0] @ p + trunk["get_weight.0.bias"]) for p in parts]
            shares = torch.stack(weights).exp()
            frames.append((torch.stack(parts) * shares / shares.sum()).sum(dim=0))
        logits.append(trunk["fc.weight"][0] @ torch.stack(frames).mean(dim=0) + trunk["fc.bias"])
    return torch.cat(logits).numpy()


def test_logits_are_those_of_the_published_formula(detector, shown):
    expected = _reference(shown[2])
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(detector.predict(shown[2]), expected, atol=1e-4 * np.abs(expected).max())


def test_windows_of_several_clips_share_a_batch(detector, shown):
    alone = np.concatenate([detector.predict(window[None]) for window in shown[2]])
    np.testing.assert_allclose(detector.predict(shown[2]), alone, rtol=1e-5, atol=1e-5)


def test_a_clip_is_judged_window_by_window(weights, shown):
    frames, wave, windows = shown
    three = LipFd.load(WeightFile(weights.path, "sha256:0", {**weights.options, "n_extract": "3"}), "cpu")
    evidence = three.assess(_clip(frames, wave))
    expected = 1 / (1 + np.exp(-three.predict(windows)))
    found = [(w.start_s, w.end_s, w.score) for w in evidence.windows]
    assert [place for *place, _ in found] == [[k / 25, (k + 4) / 25] for k in (0, 2, 4)]
    assert [score for *_, score in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert evidence.score == evidence.features["lipfd_prob_fake"] == pytest.approx(expected.mean())


def test_every_picture_and_every_crop_is_encoded_once(detector, shown, monkeypatch):
    encoded = {"picture": [], "crop": []}
    see, embed = ClipTower.forward, ResNetTrunk.embed

    def seeing(self, x):
        encoded["picture"] += [one.numpy().tobytes() for one in x]
        return see(self, x)

    def looking(self, x):
        encoded["crop"] += [one.contiguous().numpy().tobytes() for one in x]
        return embed(self, x)

    monkeypatch.setattr(ClipTower, "forward", seeing)
    monkeypatch.setattr(ResNetTrunk, "embed", looking)
    judged = len(detector.assess(_clip(*shown[:2])).windows)
    assert judged == 5
    assert {kind: len(all_of) for kind, all_of in encoded.items()} == {"picture": judged, "crop": judged * 15}
    assert {kind: len(set(all_of)) for kind, all_of in encoded.items()} == {"picture": judged, "crop": judged * 15}


def test_bfloat16_keeps_directions_and_probabilities(shown, tmp_path):
    windows = np.concatenate([shown[2][::2], 255 - shown[2][::2]])
    picture, crops = seen(windows, torch.device("cpu"), torch.float32)
    network = telling(made("lipfd"), (picture, crops))
    exact, short = (copy.deepcopy(network) for _ in range(2))
    settle(exact, "cpu")
    settle(short, "cpu", "bfloat16", ("get_weight", "fc"))
    flat = crops.flatten(0, 2)
    with torch.inference_mode():
        for a, b in (
            (exact.see(picture), short.see(picture.bfloat16())),
            (exact.look(flat), short.look(flat.bfloat16())),
        ):
            assert torch.cosine_similarity(a, b).min() >= 0.999
    save_from(network, tmp_path / "model.safetensors", OPTIONS["lipfd"])
    file = WeightFile(tmp_path / "model.safetensors", "sha256:0", OPTIONS["lipfd"])
    logits = [LipFd.load(file, "cpu", dtype).predict(windows) for dtype in ("float32", "bfloat16")]
    a, b = (1 / (1 + np.exp(-x)) for x in logits)
    assert np.ptp(a) > 0.5
    assert 0 < np.abs(a - b).max() <= 2e-2


@pytest.mark.parametrize(
    ("frames", "wave", "code"),
    [
        (9, np.zeros(0, np.int16), SkipCode.NO_AUDIO),
        (9, silence(2), SkipCode.SILENT_AUDIO),
        (9, speech(0.3), SkipCode.AUDIO_TOO_SHORT),
        (4, speech(2), SkipCode.TOO_FEW_FRAMES),
        (0, speech(2), SkipCode.TOO_FEW_FRAMES),
    ],
    ids=["mute", "silent", "0.3 s of sound", "four frames", "no frames"],
)
def test_a_clip_with_nothing_to_judge_is_skipped_with_its_code(detector, shown, frames, wave, code):
    with pytest.raises(NotApplicable) as skip:
        detector.assess(_clip(shown[0][:frames], wave))
    assert skip.value.code is code


def test_frames_that_are_no_neighbours_are_no_window(detector, shown):
    with pytest.raises(NotApplicable) as skip:
        detector.assess(_clip(shown[0], speech(1), numbers=np.arange(9) * 2))
    assert skip.value.code is SkipCode.TOO_FEW_FRAMES
    torn = [0, 1, 2, 3, 4, 20, 21, 22, 23]
    assert len(detector.assess(_clip(shown[0], speech(1), numbers=torn)).windows) == 1


@pytest.mark.parametrize("seconds", [0.8, 5.0])
def test_sound_of_another_length_is_spread_over_the_frames(few, shown, seconds):
    windows = few.assess(_clip(shown[0], speech(seconds, seed=6))).windows
    assert windows[0].score != windows[1].score
    assert windows[1].end_s == pytest.approx(8 / 25)


def test_what_was_not_heard_of_a_long_clip_is_not_judged(detector, shown):
    numbers, frames = np.concatenate([np.arange(5), np.arange(29_995, 30_000)]), shown[0][[*range(5), *range(5)]]
    windows = detector.assess(_clip(frames, np.tile(speech(5), 30), numbers, duration_s=1200.0)).windows
    assert [w.start_s for w in windows] == [0.0]


def test_of_windows_that_overlap_those_are_judged_that_were_planned():
    view = View.of(np.zeros((19, 2, 2, 3), np.uint8), np.arange(19) / 25, frames=np.arange(19))
    assert window_rows(view, 10) == np.linspace(0, 19 - 5, 10, dtype=int).tolist()


def test_windows_of_another_shape_are_refused(detector):
    with pytest.raises(DetectorError, match="windows must be uint8"):
        detector.predict(np.zeros((1, 1000, 2500, 4), np.uint8))


def test_the_result_has_the_fields_of_the_document():
    scores = LipFdScores(np.array([0.25, 0.75, 0.35]), ((0, 1), (1, 2), (2, 3)))
    found = scores.as_seed_json(1.5)
    assert found == {
        "prediction": "REAL",
        "confidence": pytest.approx(0.55),
        "processing_time": 1.5,
        "frames_analyzed": 3,
        "frame_predictions": [
            {"index": 0, "score": 0.25, "prediction": "REAL"},
            {"index": 1, "score": 0.75, "prediction": "FAKE"},
            {"index": 2, "score": 0.35, "prediction": "REAL"},
        ],
        "metrics": {"final_average_score": pytest.approx(0.45), "window_scores": [0.25, 0.75, 0.35]},
    }
    json.dumps(found)
    assert LipFdScores(np.array([0.5]), ((0, 1),)).as_seed_json(0.0)["prediction"] == "FAKE"
