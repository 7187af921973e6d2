"""The vision transformers against Hugging Face's, small, loaded from the directories that its library writes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionConfig, SiglipVisionModel, ViTConfig, ViTForImageClassification

from clipwarden.models.backbones.siglip import SiglipShape, SiglipTower
from clipwarden.models.backbones.siglip_lstm import SiglipLstmNetwork, SiglipLstmShape
from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import parameter_count
from clipwarden.models.visual.frame_vit import INPUT, FrameVit
from clipwarden.models.weights import WeightFile
from tests.networks import TINY_SIGLIP, TINY_VIT, pictures

TOLERANCE = 1e-4


def _lively(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def _pictures():
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(5))


def _difference(found, reference):
    return float((found - reference).abs().max() / reference.abs().max())


@pytest.fixture
def hub_vit(tmp_path):
    """A ViTForImageClassification in double precision, and its directory."""
    torch.manual_seed(1)
    config = ViTConfig(
        image_size=224,
        patch_size=TINY_VIT.patch_px,
        hidden_size=TINY_VIT.width,
        num_hidden_layers=TINY_VIT.layers,
        num_attention_heads=TINY_VIT.heads,
        intermediate_size=TINY_VIT.inner,
        id2label={0: "Real", 1: "Fake"},
        label2id={"Real": 0, "Fake": 1},
    )
    model = _lively(ViTForImageClassification(config))
    model.save_pretrained(tmp_path)
    return model.double(), tmp_path


@pytest.fixture
def hub_siglip(tmp_path):
    """A SiglipVisionModel in double precision, and its directory."""
    torch.manual_seed(2)
    config = SiglipVisionConfig(
        image_size=224,
        patch_size=TINY_SIGLIP.patch_px,
        hidden_size=TINY_SIGLIP.width,
        num_hidden_layers=TINY_SIGLIP.layers,
        num_attention_heads=TINY_SIGLIP.heads,
        intermediate_size=TINY_SIGLIP.inner,
    )
    model = _lively(SiglipVisionModel(config))
    model.save_pretrained(tmp_path)
    return model.double(), tmp_path


def test_vit_agrees_with_transformers(hub_vit):
    model, folder = hub_vit
    network = VitClassifier(TINY_VIT).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    assert json.loads((folder / "config.json").read_text("utf-8"))["layer_norm_eps"] == TINY_VIT.norm_epsilon
    with torch.inference_mode():
        reference = model(pixel_values=_pictures().double()).logits
        assert _difference(network(_pictures()), reference) < TOLERANCE


def test_the_detector_takes_a_directory_as_transformers_writes_it(hub_vit):
    model, folder = hub_vit
    detector = FrameVit.load(WeightFile(folder / "model.safetensors", "sha256:0"), "cpu")
    shown = pictures(2, 224)
    with torch.inference_mode():
        real, fake = model(pixel_values=INPUT.tensor(shown, torch.device("cpu")).double()).logits.T
    np.testing.assert_allclose(detector.predict(shown), (fake - real).numpy(), rtol=1e-3, atol=1e-3)


def test_vit_b16_has_the_count_and_names_of_the_public_file():
    with torch.device("meta"):
        network = VitClassifier(VitShape())
    state = network.state_dict()
    assert parameter_count(network) == 85_800_194
    assert len(state) == 200
    layer = "vit.encoder.layer.11."
    assert {n.removeprefix(layer).rpartition(".")[0] for n in state if n.startswith(layer)} == {
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
        "layernorm_before",
        "layernorm_after",
    }
    assert state["vit.embeddings.position_embeddings"].shape == (1, 197, 768)
    assert state["classifier.weight"].shape == (2, 768)


def test_siglip_agrees_with_transformers(hub_siglip):
    model, folder = hub_siglip
    found = load_file(folder / "model.safetensors")
    state = {name.removeprefix("vision_model."): tensor for name, tensor in found.items()}
    assert SiglipShape.of(state) == TINY_SIGLIP
    network = SiglipTower(TINY_SIGLIP).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        reference = model(pixel_values=_pictures().double()).pooler_output
        assert _difference(network(_pictures()), reference) < TOLERANCE


@pytest.mark.parametrize(("head", "count"), [(0, 104_436_738), (512, 105_354_498)])
def test_siglip_lstm_has_the_count_and_shapes_of_the_public_files(head, count):
    with torch.device("meta"):
        network = SiglipLstmNetwork(SiglipLstmShape(SiglipShape(), head=head))
    state = network.state_dict()
    assert parameter_count(network) == count
    assert parameter_count(network.siglip_backbone) == 92_884_224
    assert parameter_count(network.lstm) == 11_550_720
    assert sum(name.startswith("siglip_backbone.") for name in state) == 208
    shapes = {
        "siglip_backbone.embeddings.patch_embedding.weight": (768, 3, 16, 16),
        "siglip_backbone.embeddings.position_embedding.weight": (196, 768),
        "siglip_backbone.head.probe": (1, 1, 768),
        "siglip_backbone.head.attention.in_proj_weight": (2304, 768),
        "siglip_backbone.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        "lstm.weight_ih_l0": (2048, 768),
        "lstm.weight_ih_l1_reverse": (2048, 1024),
    }
    heads = (
        {"video_classifier.0.weight": (512, 1024), "image_classifier.3.weight": (1, 512)}
        if head
        else {"video_classifier.weight": (1, 1024), "image_classifier.weight": (1, 768)}
    )
    expected = {**shapes, **heads}
    assert {name: tuple(state[name].shape) for name in expected} == expected
    assert SiglipLstmShape.of(state) == SiglipLstmShape(SiglipShape(), 512, head)
