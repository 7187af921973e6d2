"""The public layout by name and size, and every file that is something else refused."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from clipwarden.models.backbones.clip import ClipTower
from clipwarden.models.checkpoint import parameter_count
from clipwarden.models.lipsync.lipfd import LipFd
from clipwarden.models.lipsync.lipfd_file import without_text
from clipwarden.models.lipsync.lipfd_fixed import LipFdFixed
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork, LipFdShape
from clipwarden.models.weights import WeightFile, weights_table
from clipwarden.shared.errors import WorkerFault
from tests.networks import made, write_weights

KINDS = {"lipfd": LipFd, "lipfd_fixed": LipFdFixed}


def text_tower(width=768, layers=12, words=49_408, places=77, embedding=768):
    """Names and sizes of OpenAI's release beside its vision tower."""
    block = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        **dict.fromkeys(
            ("attn.out_proj.bias", "mlp.c_proj.bias", "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"), (width,)
        ),
    }
    return {
        "encoder.positional_embedding": (places, width),
        "encoder.text_projection": (width, embedding),
        "encoder.logit_scale": (),
        "encoder.token_embedding.weight": (words, width),
        "encoder.ln_final.weight": (width,),
        "encoder.ln_final.bias": (width,),
        **{f"encoder.transformer.resblocks.{k}.{n}": size for k in range(layers) for n, size in block.items()},
    }


def small_text():
    return {name: torch.randn(size) * 0.1 for name, size in text_tower(32, 2, 99, 7, 64).items()}


def _written(state, folder, name="lipfd", metadata=None):
    path = folder / ("ckpt.safetensors" if metadata is not None else "ckpt.pth")
    if metadata is None:
        torch.save({"model": state, "optimizer": {"state": {}}, "total_steps": 100}, path)
    else:
        save_file({n: t.contiguous() for n, t in state.items()}, path, metadata=metadata)
    return WeightFile(path, "sha256:0", weights_table()[name].options)


def test_the_public_checkpoint_has_770_tensors_and_451_130_407_parameters():
    with torch.device("meta"):
        network = LipFdNetwork(LipFdShape())
        text = {name: torch.empty(size) for name, size in text_tower().items()}
    state = {**network.state_dict(), **text}
    count = parameter_count(network) + sum(t.numel() for t in text.values())
    assert (len(text), len(state), count) == (150, 770, 451_130_407)
    assert (LipFd.spec.parameters, LipFdFixed.spec.parameters) == (count, parameter_count(network))
    assert sum(name.startswith("encoder.") for name in state) == 446
    assert sum(name.startswith("backbone.") for name in state) == 322
    expected = {
        "conv1.weight": (3, 3, 5, 5),
        "conv1.bias": (3,),
        "encoder.visual.positional_embedding": (257, 1024),
        "encoder.visual.proj": (1024, 768),
        "encoder.visual.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        "backbone.layer4.2.conv3.weight": (2048, 512, 1, 1),
        "backbone.get_weight.0.weight": (1, 2816),
        "backbone.get_weight.0.bias": (1,),
        "backbone.fc.weight": (1, 2816),
        "backbone.fc.bias": (1,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    assert without_text(state, "ckpt.pth").keys() == network.state_dict().keys()


def test_clip_is_the_tower_that_the_other_detectors_use():
    assert isinstance(made("lipfd").encoder["visual"], ClipTower)


@pytest.mark.parametrize("text", [{}, small_text()], ids=["without text", "with text"])
def test_a_public_checkpoint_is_loaded(text, tmp_path):
    assert isinstance(LipFd.load(_written({**made("lipfd").state_dict(), **text}, tmp_path), "cpu"), LipFd)


def _spoil(state, name, tensor=None):
    return {**{n: t for n, t in state.items() if n != name}, **({} if tensor is None else {name: tensor})}


@pytest.mark.parametrize(
    ("name", "tensor", "why"),
    [
        ("backbone.layer3.0.bn2.running_mean", None, r"missing backbone\.layer3\.0\.bn2\.running_mean"),
        ("backbone.fc.weight", torch.zeros(1, 9), r"backbone\.fc\.weight is \(1, 9\), not \(1, 320\)"),
        ("backbone.conv1.weight", None, r"are not LipFD's: KeyError\('backbone\.conv1\.weight'\)"),
        ("encoder.visual.conv1.weight", None, r"are not LipFD's: KeyError\('encoder\.visual\.conv1\.weight'\)"),
        ("backbone.extra", torch.zeros(2), r"unknown backbone\.extra"),
        ("encoder.visual.positional_embedding", torch.zeros(50, 128), "other pictures than 224 px"),
        ("encoder.visual.proj", None, "other pictures than 224 px"),
        ("encoder.ln_final.bias", None, r"no whole text tower of CLIP: encoder\.ln_final\.bias"),
        ("encoder.transformer.resblocks.1.mlp.c_fc.weight", torch.zeros(4, 4), r"no whole text tower.*\(4, 4\)"),
        ("conv1.bias", torch.tensor([0.0, torch.nan, 0.0]), r"not finite, in conv1\.bias"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_what_differs(name, tensor, why, tmp_path):
    state = _spoil({**made("lipfd").state_dict(), **small_text()}, name, tensor)
    with pytest.raises(WorkerFault, match=why):
        LipFd.load(_written(state, tmp_path), "cpu")


class _Runs:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_that_would_run_code_and_a_cut_file_are_refused(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": _Runs()}))
    whole = _written(made("lipfd").state_dict(), tmp_path)
    (tmp_path / "cut.pth").write_bytes(whole.path.read_bytes()[:-2000])
    for name in ("evil.pth", "cut.pth"):
        with pytest.raises(WorkerFault, match="hold no plain tensors, or are cut off"):
            LipFd.load(WeightFile(tmp_path / name, "sha256:0", whole.options), "cpu")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "metadata", "why"),
    [
        ("lipfd", {"profile": "fixed"}, "of profile fixed by their file, this detector is original"),
        ("lipfd_fixed", {"profile": "original"}, "of profile original by their file, this detector is fixed"),
        ("lipfd_fixed", {}, "of profile original by their file, this detector is fixed"),
        ("lipfd_fixed", None, "of profile original by their file, this detector is fixed"),
    ],
)
def test_weights_of_the_other_profile_are_refused(name, metadata, why, tmp_path):
    with pytest.raises(WorkerFault, match=why):
        KINDS[name].load(_written(made(name).state_dict(), tmp_path, name, metadata), "cpu")


def test_an_entry_of_the_other_profile_is_refused(tmp_path):
    for name, other in (("lipfd", "lipfd_fixed"), ("lipfd_fixed", "lipfd")):
        weights = write_weights(name, tmp_path)
        with pytest.raises(WorkerFault, match="by their entry"):
            KINDS[name].load(WeightFile(weights.path, "sha256:0", weights_table()[other].options), "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"profile": "both"},
        {"profile": "original", "arch": "CLIP:ViT-B/32"},
        {"profile": "original", "window_len": "4"},
        {"profile": "original", "n_extract": "11"},
        {"profile": "original", "crop": "lips"},
    ],
)
def test_options_that_the_network_cannot_keep_are_refused(options, tmp_path):
    weights = write_weights("lipfd", tmp_path)
    with pytest.raises(WorkerFault, match="are not LipFD's"):
        LipFd.load(WeightFile(weights.path, "sha256:0", options), "cpu")
