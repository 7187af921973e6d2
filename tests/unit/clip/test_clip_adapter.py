"""The CLIP adapter: the count of the public card, CLIP itself until trained, files of other designs refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from clipwarden.models.backbones.clip import NORMALISATION, ClipShape, ClipTower
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.clip.adapters import ClipAdapterNetwork
from clipwarden.models.clip.clip_adapter import NEED, ClipAdapter
from clipwarden.models.clip.layouts import fingerprint
from clipwarden.models.clip.predicting import predict_from_folder, predict_from_frames, predict_from_video
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, MediaError, NotApplicable, WorkerFault
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests.networks import TINY_CLIP, clip_adapter, pictures


def _weights(network, folder):
    save_from(network, folder / "model.safetensors", {})
    return WeightFile(folder / "model.safetensors", "sha256:0")


@pytest.fixture(scope="module")
def network():
    return clip_adapter()


@pytest.fixture(scope="module")
def detector(network, tmp_path_factory):
    return ClipAdapter.load(_weights(network, tmp_path_factory.mktemp("weights")), "cpu")


@pytest.fixture(scope="module")
def fence():
    with Fence(MediaLimits()) as made:
        yield made


def _public(network, prefix="clip.vision_model.", first=TINY_CLIP.layers - 3):
    """A training checkpoint as the card's author saves one: Hugging Face's tower, AIM's adapters, a head."""
    state, layers = network.state_dict(), f"{prefix}encoder.layers."
    made = {
        f"{prefix}embeddings.class_embedding": state["tower.class_embedding"],
        f"{prefix}embeddings.patch_embedding.weight": state["tower.conv1.weight"],
        f"{prefix}embeddings.position_embedding.weight": state["tower.positional_embedding"],
        f"{prefix}embeddings.position_ids": torch.arange(len(state["tower.positional_embedding"]))[None].float(),
        "clip.text_model.final_layer_norm.weight": torch.ones(4),
        "clip.logit_scale": torch.ones(()),
    }
    for kind in ("weight", "bias"):
        made |= {f"{prefix}{theirs}.{kind}": state[f"tower.{ours}.{kind}"] for ours, theirs in _NORMS.items()}
        made |= {f"classifier.{k}.{kind}": state[f"head.{k}.{kind}"] for k in (0, 3)}
        for k in range(TINY_CLIP.layers):
            block = f"tower.transformer.resblocks.{k}."
            parts = state[f"{block}attn.in_proj_{kind}"].chunk(3)
            made |= {f"{layers}{k}.self_attn.{p}_proj.{kind}": t for p, t in zip("qkv", parts, strict=True)}
            made |= {f"{layers}{k}.{theirs}.{kind}": state[f"{block}{ours}.{kind}"] for ours, theirs in _LAYER.items()}
        for k in range(3):
            for place, letter in (("temporal", "T"), ("spatial", "S"), ("mlp", "MLP")):
                theirs, ours = f"adapter_blocks.{first + k}.{letter}_Adapter.D_fc", f"adapters.{k}.{place}."
                made |= {f"{theirs}{n}.{kind}": state[f"{ours}{end}.{kind}"] for n, end in ((1, "down"), (2, "up"))}
    return made


_NORMS = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _load_public(state, folder):
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}}, folder / "pytorch_model.bin")
    return ClipAdapter.load(WeightFile(folder / "pytorch_model.bin", "sha256:0"), "cpu")


def _linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(x, state, name):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _attention(x, state, name):
    """Torch's own multi-head attention."""
    module = nn.MultiheadAttention(x.shape[-1], x.shape[-1] // 64, batch_first=True, dtype=torch.float64)
    module.load_state_dict({n.removeprefix(f"{name}."): t for n, t in state.items() if n.startswith(f"{name}.")})
    return module(x, x, x, need_weights=False)[0]


def _adapter(x, state, name):
    return _linear(F.gelu(_linear(x, state, f"{name}.down")), state, f"{name}.up")


def _perceptron(x, state, name):
    inner = _linear(x, state, f"{name}.c_fc")
    return _linear(inner * torch.sigmoid(1.702 * inner), state, f"{name}.c_proj")


@torch.inference_mode()
def _reference(network, frames):
    """Logits (2,) of twelve frames by the design's formulas in double precision."""
    state = {n: t.double() for n, t in network.state_dict().items()}
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in NORMALISATION)
    x = (torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255 - mean) / std
    x = F.conv2d(x, state["tower.conv1.weight"], stride=TINY_CLIP.patch_px)
    places = state["tower.positional_embedding"]
    square = places[1:].T.reshape(1, -1, TINY_CLIP.grid, TINY_CLIP.grid)
    grid = F.interpolate(square, size=x.shape[2:], mode="bicubic")[0].flatten(1).T
    x = torch.cat([state["tower.class_embedding"].expand(12, 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    x = _norm(x + torch.cat([places[:1], grid]), state, "tower.ln_pre")
    width = x.shape[-1]
    rates = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(12, dtype=torch.float64)[:, None] * rates
    times = torch.cat([angles.sin(), angles.cos()], dim=1)
    for k in range(TINY_CLIP.layers):
        block, adapters = f"tower.transformer.resblocks.{k}", f"adapters.{k - TINY_CLIP.layers + 3}"
        adapted = k >= TINY_CLIP.layers - 3
        if adapted:
            along = _norm((x + times[:, None]).transpose(0, 1), state, f"{block}.ln_1")
            x = x + _adapter(_attention(along, state, f"{block}.attn"), state, f"{adapters}.temporal").transpose(0, 1)
        seen = _attention(_norm(x, state, f"{block}.ln_1"), state, f"{block}.attn")
        x = x + seen + (_adapter(seen, state, f"{adapters}.spatial") if adapted else 0)
        normed = _norm(x, state, f"{block}.ln_2")
        beside = 0.5 * _adapter(normed, state, f"{adapters}.mlp") if adapted else 0
        x = x + _perceptron(normed, state, f"{block}.mlp") + beside
    pooled = _norm(x[:, 0], state, "tower.ln_post").mean(dim=0)
    return _linear(F.gelu(_linear(pooled, state, "head.0")), state, "head.3").numpy()


def test_full_size_has_the_counts_of_the_card():
    with torch.device("meta"):
        network = ClipAdapterNetwork(ClipShape())
    assert parameter_count(network) == ClipAdapter.spec.parameters == 308_435_714
    assert parameter_count(network) - parameter_count(network.tower) == 5_255_938
    assert parameter_count(network.head) == 525_826
    assert parameter_count(network.adapters) == 9 * 525_568


def test_logits_are_those_of_the_formulas(network, detector):
    frames = pictures(12, 384, seed=1)
    found, expected = detector.examine(frames).logits, _reference(network, frames)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4


def test_an_untrained_network_is_clip_frame_by_frame():
    torch.manual_seed(4)
    tower = ClipTower(TINY_CLIP).eval()
    network = ClipAdapterNetwork.around(tower, TINY_CLIP).eval()
    shown = torch.randn(12, 3, 384, 384)
    with torch.inference_mode():
        embeddings = network.follow(network.encode(shown)[None])[0]
        torch.testing.assert_close(embeddings, tower(shown), rtol=1e-4, atol=1e-5)
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {"adapters", "head"}


def test_the_order_of_the_frames_matters(detector):
    frames = pictures(12, 384, seed=2)
    assert abs(detector.predict([frames])[0] - detector.predict([frames[::-1].copy()])[0]) > 1e-3


def test_clips_of_a_batch_are_judged_as_alone(detector):
    clips = [pictures(n, 384, seed=n) for n in (12, 5, 1)]
    alone = np.concatenate([detector.predict([clip]) for clip in clips])
    np.testing.assert_allclose(detector.predict(clips), alone, rtol=1e-4, atol=1e-5)


def test_a_short_clip_shows_frames_twice_and_encodes_each_once(detector, monkeypatch):
    encoded = []
    plain = ClipAdapterNetwork.encode

    def counting(self, shown):
        encoded.append(len(shown))
        return plain(self, shown)

    monkeypatch.setattr(ClipAdapterNetwork, "encode", counting)
    frames = pictures(5, 384, seed=6)
    logit = detector.predict([frames])
    assert encoded == [5]
    repeated = frames[np.linspace(0, 4, 12, dtype=int)]
    np.testing.assert_allclose(logit, detector.predict([repeated]), rtol=1e-4, atol=1e-5)


def test_evidence_has_a_window_for_each_frame(detector):
    view = View.of(pictures(7, 384, seed=7), np.arange(7) / 2)
    evidence = detector.assess(Clip(views={NEED.key: view}, duration_s=3.5))
    assert len(evidence.windows) == 7
    assert evidence.windows[-1].end_s == 3.5
    assert evidence.score == evidence.features["clip_adapter_prob_fake"]


def test_fewer_than_four_frames_are_too_few(detector):
    view = View.of(pictures(3, 384), np.arange(3.0))
    with pytest.raises(NotApplicable) as skip:
        detector.assess(Clip(views={NEED.key: view}, duration_s=3.0))
    assert skip.value.code is SkipCode.TOO_FEW_FRAMES


def test_pictures_of_another_size_and_clips_without_frames_are_refused(detector):
    with pytest.raises(DetectorError, match="384"):
        detector.predict([pictures(12, 224)])
    with pytest.raises(DetectorError, match="1 to 12"):
        detector.predict([np.zeros((0, 384, 384, 3), np.uint8)])


def test_a_public_checkpoint_of_our_design_is_loaded(network, detector, tmp_path):
    frames = pictures(12, 384, seed=9)
    loaded = _load_public(_public(network), tmp_path)
    np.testing.assert_array_equal(loaded.predict([frames]), detector.predict([frames]))


def test_adapters_in_other_layers_are_refused(network, tmp_path):
    with pytest.raises(WorkerFault, match=r"unknown adapters\.-1"):
        _load_public(_public(network, first=TINY_CLIP.layers - 4), tmp_path)


def test_adapters_whose_names_say_no_place_are_refused(network, tmp_path):
    renamed = {n.replace("T_Adapter.D_fc", "first"): t for n, t in _public(network).items()}
    with pytest.raises(WorkerFault, match="does not say which adapter"):
        _load_public(renamed, tmp_path)


def test_the_other_designs_of_the_same_count_are_told_apart_and_refused(network, tmp_path):
    w = TINY_CLIP.width
    attention = [(3 * w, w), (3 * w,), (w, w), (w,)]
    quarter = [(w // 4, w), (w // 4,), (w, w // 4), (w,)]
    wide = [(w,), (w,), (3 * w // 4, w), (3 * w // 4,), (w, 3 * w // 4), (w,)]
    end = [(w // 2, w), (w // 2,), (2, w // 2), (2,)]
    designs = {"A": 9 * quarter + end, "B": attention + quarter + 6 * [(w,)] + end, "C": 3 * wide + end}
    assert {name: fingerprint(sizes, w) for name, sizes in designs.items()} == {"A": "A", "B": "B", "C": "C"}
    assert fingerprint(end, w) is None
    tower = {n: t for n, t in _public(network).items() if n.startswith("clip.")}
    for name in ("B", "C"):
        state = {**tower, **{f"extra.{k}": torch.zeros(size) for k, size in enumerate(designs[name])}}
        with pytest.raises(WorkerFault, match=f"design {name}"):
            _load_public(state, tmp_path)
    with pytest.raises(WorkerFault, match="no known design"):
        _load_public(tower, tmp_path)


def test_full_size_designs_have_the_cards_count():
    head = 1024 * 512 + 512 + 512 * 2 + 2
    bottleneck = 1024 * 256 + 256 + 256 * 1024 + 1024
    designs = (9 * bottleneck, 4 * 1024 * 1024 + 4 * 1024 + bottleneck + 3 * 2048, 3 * (2048 + 1024 * 768 * 2 + 1792))
    assert {head + adapters for adapters in designs} == {5_255_938}


def test_a_file_without_the_tower_is_refused(network, tmp_path):
    trained = {n: t for n, t in _public(network).items() if not n.startswith("clip.")}
    with pytest.raises(WorkerFault, match="no whole vision tower"):
        _load_public(trained, tmp_path)


def test_a_file_of_ours_that_lacks_an_adapter_is_refused_by_name(network, tmp_path):
    state = {n: t for n, t in network.state_dict().items() if n != "adapters.1.mlp.up.bias"}
    with pytest.raises(WorkerFault, match=r"missing adapters\.1\.mlp\.up\.bias"):
        _load_public(state, tmp_path)


def test_frames_in_memory_and_in_a_folder_give_the_same(detector, fence, tmp_path):
    frames = pictures(14, 400, seed=10)
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{k:02}.png")
    (tmp_path / "notes.txt").write_text("not a picture", "utf-8")
    in_memory = predict_from_frames(detector, list(frames))
    np.testing.assert_allclose(predict_from_folder(detector, fence, tmp_path).logits, in_memory.logits, rtol=1e-6)


def test_the_seeds_result_has_its_fields(detector):
    found = predict_from_frames(detector, list(pictures(12, 384, seed=11))).as_seed_json()
    assert set(found) == {"logits", "probabilities", "prediction", "confidence"}
    logits = np.array(found["logits"][0])
    np.testing.assert_allclose(found["probabilities"], np.exp(logits) / np.exp(logits).sum(), rtol=1e-9)
    assert found["confidence"] == max(found["probabilities"]) == found["probabilities"][found["prediction"]]
    json.dumps(found)


def test_a_video_is_read_behind_the_fence(detector, fence, talking_head, wav):
    assert len(predict_from_video(detector, fence, talking_head).per_frame) == 12
    with pytest.raises(MediaError):
        predict_from_video(detector, fence, wav)


def test_a_folder_without_pictures_and_no_frames_are_refused(detector, fence, tmp_path):
    with pytest.raises(MediaError):
        predict_from_folder(detector, fence, tmp_path)
    with pytest.raises(DetectorError):
        predict_from_frames(detector, [])
