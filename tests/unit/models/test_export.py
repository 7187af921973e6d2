"""Every network as a file that others can run: the same numbers at any batch size, and what a user must know beside."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from clipwarden.models.audio.mel import log_mel
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.export import FACTS, as_onnx, as_torchscript, facts_of
from clipwarden.models.graphs import NAMES, Graph, Port, graph_of, network_of
from clipwarden.models.weights import file_digest, verified, weights_path, weights_table
from clipwarden.shared.cli import main
from clipwarden.shared.errors import WorkerFault
from tests.media import speech
from tests.networks import made, pictures, write_weights

TOLERANCE = 1e-4
SHIPPED = {"forensic_mlp", "cqcc_cnn"}
CHEAP = ("forensic_mlp", "cqcc_cnn", "speech_stats", "tiny_gate", "frame_vit", "siglip_lstm", "av_sync", "av_sync_seed")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A detector by name, with its weights; tiny where its shape may vary."""
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def of(name):
        if name not in made:
            weights = verified(name) if name in SHIPPED else write_weights(name, folder)
            made[name] = detector_class(name).load(weights, "cpu"), weights
        return made[name]

    return of


@pytest.fixture(scope="module")
def exported(loaded):
    """A detector's ONNX file in memory."""
    made = {}

    def of(name):
        if name not in made:
            detector, weights = loaded(name)
            graph = graph_of(name, detector)
            made[name] = as_onnx(graph, facts_of(detector, weights, graph))
        return made[name]

    return of


def agree(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def facts(model):
    return {prop.key: prop.value for prop in onnx.load_model_from_string(model).metadata_props}


def test_every_detector_can_be_exported():
    assert set(NAMES) == set(DETECTORS)


@pytest.mark.parametrize("name", NAMES)
def test_the_onnx_graph_computes_what_the_network_computes(loaded, exported, name):
    graph = graph_of(name, loaded(name)[0])
    session = onnxruntime.InferenceSession(exported(name))
    for batch, more in ((1, 0), (3, 1)):
        inputs = graph.samples(batch, more)
        with torch.inference_mode():
            expected = graph.network(*inputs).numpy()
        fed = {port.name: x.numpy() for port, x in zip(graph.inputs, inputs, strict=True)}
        agree(session.run(None, fed)[0], expected)


@pytest.mark.parametrize("name", CHEAP)
def test_the_torchscript_graph_computes_what_the_network_computes(loaded, tmp_path, name):
    graph = graph_of(name, loaded(name)[0])
    (tmp_path / "graph.pt").write_bytes(as_torchscript(graph, {}))
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        module = torch.jit.load(tmp_path / "graph.pt")
    for batch, more in ((1, 0), (3, 1)):
        inputs = graph.samples(batch, more)
        with torch.inference_mode():
            agree(module(*inputs).numpy(), graph.network(*inputs).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_whose_weights_it_holds_and_what_it_takes(loaded, exported, name):
    said, weights = facts(exported(name)), loaded(name)[1]
    assert (said["detector"], said["weights"]) == (name, file_digest(weights.path))
    assert said["licence"] == weights_table()[name].licence
    inputs, output = json.loads(said["inputs"]), json.loads(said["output"])
    session = onnxruntime.InferenceSession(exported(name))
    assert [(taken["name"], taken["shape"]) for taken in inputs] == [(i.name, i.shape) for i in session.get_inputs()]
    assert all(taken["facts"]["holds"] for taken in inputs)
    assert all({"colour", "range"} <= taken["facts"].keys() for taken in inputs if 3 in taken["shape"])
    assert output["facts"]["labels"]


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("lipfd") and n != "forensic_mlp"])
def test_a_file_says_how_its_pictures_are_cut_and_scaled(loaded, name):
    detector = loaded(name)[0]
    need, graph = detector.spec.needs.frames, graph_of(name, detector)
    said = [p.facts for p in graph.inputs if "view" in p.facts]
    cut = {"view": need.view, "margin": need.margin, "resize": need.kernel} if need else None
    assert [{key: facts[key] for key in cut} for facts in said] == ([cut] if need else [])


def test_a_sequence_network_names_its_frame_network_too(loaded, exported):
    assert facts(exported("temporal_bilstm"))["backbone"] == loaded("temporal_bilstm")[1].backbone.digest


def test_pictures_prepared_as_the_file_says_get_the_detectors_logits(loaded, exported):
    (taken,) = json.loads(facts(exported("frame_vit"))["inputs"])
    shown = pictures(3, taken["shape"][-1])
    mean, std = (np.array(taken["facts"][name], np.float32) for name in ("mean", "std"))
    fed = ((shown / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    real, fake = onnxruntime.InferenceSession(exported("frame_vit")).run(None, {taken["name"]: fed})[0].T
    agree(fake - real, loaded("frame_vit")[0].predict(shown))


def test_sound_prepared_as_the_file_says_gets_the_detectors_logits(loaded, exported):
    (taken,) = json.loads(facts(exported("mel_resnet18"))["inputs"])
    heard = np.stack([log_mel(speech(4, seed) / np.float32(32768)) for seed in range(2)])
    assert taken["facts"]["sample_rate_hz"] == 16_000
    real, fake = onnxruntime.InferenceSession(exported("mel_resnet18")).run(None, {taken["name"]: heard[:, None]})[0].T
    agree(fake - real, loaded("mel_resnet18")[0].predict(heard))


class _Batched(nn.Module):
    """Takes its batch size for a constant where it is traced."""

    def forward(self, x):
        return x * torch.ones(len(x), 1)


def test_a_graph_that_holds_only_at_the_traced_size_is_not_handed_out():
    graph = Graph(_Batched(), (Port("x", ("batch", 2)),), Port("y", ("batch", 2)))
    with pytest.raises(WorkerFault, match="exported graph"):
        as_torchscript(graph, {})
    with pytest.raises(WorkerFault, match="exported graph"):
        as_onnx(graph, {})


def test_exporting_leaves_the_detector_as_it_was(loaded, exported):
    detector = loaded("tiny_gate")[0]
    before = detector.predict(pictures(2, 256))
    as_torchscript(graph_of("tiny_gate", detector), {})
    assert not network_of(detector).training
    np.testing.assert_array_equal(detector.predict(pictures(2, 256)), before)


def test_the_command_writes_a_valid_onnx_file(tmp_path, capsys):
    out = tmp_path / "mlp.onnx"
    assert main(["models", "export", "forensic_mlp", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    onnx.checker.check_model(onnx.load(out), full_check=True)
    assert facts(out.read_bytes())["weights"] == weights_table()["forensic_mlp"].sha256


def test_the_command_writes_torchscript_with_its_facts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["models", "export", "forensic_mlp", "--format", "torchscript"]) == 0
    extra = {FACTS: ""}
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        torch.jit.load(tmp_path / "forensic_mlp.pt", _extra_files=extra)
    assert json.loads(extra[FACTS])["weights"] == weights_table()["forensic_mlp"].sha256


def test_the_command_takes_a_file_of_the_users(tmp_path):
    weights, out = write_weights("frame_vit", tmp_path), tmp_path / "vit.onnx"
    assert main(["models", "export", "frame_vit", "--weights", str(weights.path), "--out", str(out)]) == 0
    assert facts(out.read_bytes())["weights"] == weights.digest


def test_what_a_file_does_not_say_is_asked_for_and_written_with_it(tmp_path, capsys):
    path, out = tmp_path / "Tiny_LaDeDa.pth", tmp_path / "gate.onnx"
    torch.save({f"module.{n}": t for n, t in made("tiny_gate").state_dict().items()}, path)
    words = ["models", "export", "tiny_gate", "--weights", str(path), "--out", str(out)]
    assert main(words) == 2
    assert "needs --option front=" in capsys.readouterr().err
    assert main([*words, "--option", "front=x_grad"]) == 0
    (taken,) = json.loads(facts(out.read_bytes())["inputs"])
    assert (taken["facts"]["filter"], facts(out.read_bytes())["weights"]) == ("x_grad", file_digest(path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forensic_mlp", "--option", "a=b"], "name the file by --weights"),
        (["clip_adapter"], "are not installed"),
        (["forensic_mlp", "--weights", "absent.safetensors"], "absent.safetensors cannot be opened"),
        (["forensic_mlp", "--weights", str(weights_path(weights_table()["cqcc_cnn"]))], "do not fit"),
        (["forensic_mlp", "--out", "taken.onnx"], "is there already"),
        (["forensic_mlp", "--out", "no/such/folder.onnx"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.onnx").write_bytes(b"mine")
    assert main(["models", "export", *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]
    assert (tmp_path / "taken.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("words", [["no_such_detector"], [], ["forensic_mlp", "--format", "tflite"]])
def test_wrong_use_of_the_command_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(["models", "export", *words])
    assert "usage: clipwarden models export" in capsys.readouterr().err
