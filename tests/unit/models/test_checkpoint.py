"""Checkpoints of others are read whatever their wrapping, and refused when they are broken, hostile or not ours."""

import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from clipwarden.models.checkpoint import load_into, read_state, save_from, settle
from clipwarden.models.visual.tiny_gate import TinyNetwork
from clipwarden.models.weights import WeightFile
from clipwarden.shared.errors import WorkerFault
from tests.networks import made


@pytest.fixture
def state():
    return made("tiny_gate").state_dict()


def _file(path, content):
    torch.save(content, path)
    return WeightFile(path, "sha256:0")


WRAPPINGS = {
    "plain": OrderedDict,
    "data parallel": lambda s: {f"module.{n}": t for n, t in s.items()},
    "training state": lambda s: {
        "epoch": 3,
        "model_state_dict": s,
        "optimizer_state_dict": {"lr": 0.1},
        "val_auc": 0.5,
    },
    "parallel in training state": lambda s: {"state_dict": {f"module.{n}": t for n, t in s.items()}, "epoch": 1},
    "model beside optimiser": lambda s: {"model": s, "optimizer": {}, "total_steps": 7},
    "half precision": lambda s: {n: t.half() if t.is_floating_point() else t for n, t in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_wrappings_of_training_programs_are_taken_off(tmp_path, state, wrapping):
    network = TinyNetwork()
    load_into(network, _file(tmp_path / "a.pth", WRAPPINGS[wrapping](state)), "cpu")
    tolerance = 1e-3 if wrapping == "half precision" else 1e-6
    torch.testing.assert_close(network.fc.weight, state["fc.weight"], atol=tolerance, rtol=tolerance)
    assert network.fc.weight.dtype is torch.float32
    assert not network.training


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path, state):
    path = tmp_path / "gpu.pth"
    torch.save(state, path, pickle_protocol=2)
    content = path.read_bytes()
    assert b"cpu" in content
    path.write_bytes(_renamed_device(path))
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    assert read_state(WeightFile(path, "sha256:0")).keys() == state.keys()


def _renamed_device(path):
    """The same zip file, its tensors said to lie on the first GPU."""
    import io
    import zipfile

    made_ = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made_, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("data.pkl"):
                body = body.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(name, body)
    return made_.getvalue()


class _Attack:
    def __reduce__(self):
        return os.mkdir, (f"{os.environ['ATTACKED']}",)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_is_refused_before_it_does(tmp_path, monkeypatch, state, write):
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    path = tmp_path / "evil.pth"
    write({**state, "fc.bias": _Attack()}, path)
    with pytest.raises(WorkerFault, match="hold no plain tensors"):
        read_state(WeightFile(path, "sha256:0"))
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path, state, name, share):
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WorkerFault, match=name):
        read_state(WeightFile(path, "sha256:0"))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {}, torch.zeros(3), {"model": {"a": 1}}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    with pytest.raises(WorkerFault, match="no tensors by name"):
        read_state(_file(tmp_path / "a.pth", content))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, state, value):
    broken = {**state, "bn1.weight": torch.full((8,), value)}
    with pytest.raises(WorkerFault, match=r"not finite, in bn1\.weight"):
        read_state(_file(tmp_path / "a.pth", broken))


STRANGE = {
    "sparse": lambda: torch.eye(8).to_sparse(),
    "without content": lambda: torch.zeros(8, device="meta"),
    "one number a million million times": lambda: torch.zeros(1).expand(10**12),
    "eight bits": lambda: torch.zeros(8).to(torch.float8_e4m3fn),
    "complex": lambda: torch.zeros(8, dtype=torch.complex64),
    "nested": lambda: torch.nested.as_nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_plain_tensor_is_refused_by_name(tmp_path, state, kind):
    with pytest.raises(WorkerFault, match=r"other than plain tensors, in bn1\.bias|hold no plain tensors"):
        read_state(_file(tmp_path / "a.pth", {**state, "bn1.bias": STRANGE[kind]()}))


def test_every_difference_is_named(tmp_path, state):
    del state["conv1.weight"]
    state.update({"fc.weight": torch.zeros(1, 32), "layer2.weight": torch.zeros(1)})
    with pytest.raises(WorkerFault) as fault:
        load_into(TinyNetwork(), _file(tmp_path / "a.pth", state), "cpu")
    message = str(fault.value)
    assert "missing conv1.weight; unknown layer2.weight; fc.weight is (1, 32), not (1, 8)" in message


def test_a_gpu_computes_float32_in_full_once_a_network_is_there_to_judge():
    torch.backends.cudnn.allow_tf32 = True
    settle(TinyNetwork(), "cpu")
    assert torch.backends.cudnn.allow_tf32 is False
    assert not torch.backends.cuda.matmul.allow_tf32


def test_what_is_kept_stays_exact_in_bfloat16(tmp_path, state):
    save_from(made("tiny_gate"), tmp_path / "a.safetensors", {})
    network = TinyNetwork()
    load_into(network, WeightFile(tmp_path / "a.safetensors", "sha256:0"), "cpu", "bfloat16", keep=("fc",))
    assert network.conv1.weight.dtype is torch.bfloat16
    assert torch.equal(network.fc.weight, state["fc.weight"])
