"""CLIP's vision tower against Hugging Face's, small, loaded from the directories that its library writes."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from clipwarden.models.backbones.clip import NORMALISATION, ClipShape, ClipTower, hub_rest, hub_tower
from clipwarden.models.backbones.pictures import PictureInput, infer
from clipwarden.models.checkpoint import parameter_count, settle
from tests.networks import pictures

TINY = ClipShape(patch_px=28, grid=8, width=128, layers=4, inner=256)
VISION = {
    "image_size": 224,
    "patch_size": TINY.patch_px,
    "hidden_size": TINY.width,
    "num_hidden_layers": TINY.layers,
    "num_attention_heads": TINY.heads,
    "intermediate_size": TINY.inner,
}


def _lively(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A CLIPVisionModel in double precision, and the tensors of its directory."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("hub")
    model = _lively(CLIPVisionModel(CLIPVisionConfig(**VISION)))
    model.save_pretrained(folder)
    return model.double(), load_file(folder / "model.safetensors")


def _tower(state):
    tower = ClipTower(ClipShape.of(state)).eval()
    tower.load_state_dict(state)
    return tower


@pytest.mark.parametrize("size_px", [224, 384], ids=["as trained", "with stretched positions"])
def test_the_tower_agrees_with_transformers(hub, size_px):
    model, state = hub
    shown = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        reference = model(pixel_values=shown.double(), interpolate_pos_encoding=size_px != 224).pooler_output
        found = _tower(hub_tower(state))(shown)
    assert float((found - reference).abs().max() / reference.abs().max()) < 1e-4


def test_the_sizes_are_read_off_a_file(hub):
    assert ClipShape.of(hub_tower(hub[1])) == TINY


def test_a_hub_file_of_the_whole_of_clip_gives_its_tower(hub):
    torch.manual_seed(2)
    text = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    whole = CLIPModel(CLIPConfig(text_config={**text, "vocab_size": 99}, vision_config=VISION)).state_dict()
    assert hub_tower(whole).keys() == hub_tower(hub[1]).keys()
    assert hub_rest({**whole, "head.bias": torch.zeros(2)}).keys() == {"head.bias"}


def test_a_tower_with_a_tensor_missing_is_named(hub):
    state = {name: tensor for name, tensor in hub[1].items() if not name.endswith("layers.2.mlp.fc1.bias")}
    with pytest.raises(KeyError, match=r"layers\.2\.mlp\.fc1\.bias"):
        hub_tower(state)


def test_bfloat16_keeps_the_direction_of_every_embedding(hub):
    exact, short = _tower(hub_tower(hub[1])), _tower(hub_tower(hub[1]))
    settle(exact, "cpu")
    settle(short, "cpu", "bfloat16")
    taken, shown = PictureInput(224, *NORMALISATION), pictures(4, 224, seed=3)
    a, b = (infer(tower, taken, shown, 4).astype(np.float64) for tower in (exact, short))
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= 0.999


def test_vit_l14_has_the_counts_and_names_of_the_public_files():
    with torch.device("meta"):
        plain, projecting = ClipTower(ClipShape()), ClipTower(ClipShape(embedding=768))
    assert parameter_count(plain) == 303_179_776
    sizes = {name: tuple(t.shape) for name, t in projecting.state_dict().items()}
    assert sizes["positional_embedding"] == (257, 1024)
    assert sizes["proj"] == (1024, 768)
    assert sizes["transformer.resblocks.23.attn.in_proj_weight"] == (3072, 1024)
    assert set(sizes) - set(plain.state_dict()) == {"proj"}
