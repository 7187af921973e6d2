"""What a checkpoint holds comes out as it was; what is no tensor does not, and reading it can do nothing else."""

import os
import subprocess
import sys
from io import BytesIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from clipwarden.models.checkpoint import TYPES
from clipwarden.models.hub.foreign import convert, is_safetensors
from clipwarden.models.hub.unpack import Refused, tensors, write
from clipwarden.shared.errors import ConfigError

ATTEMPTS = """
import os, socket, subprocess, sys
from clipwarden.models.hub import unpack
unpack.warm()
unpack.confine(1000)
def tried(what):
    try:
        what()
    except (OSError, MemoryError, RuntimeError):
        return "no"
    return "yes"
import torch
print([
    tried(lambda: open(sys.argv[1])), tried(lambda: open(sys.argv[2], "w")), tried(lambda: os.listdir("/")),
    tried(socket.socket), tried(os.fork), tried(lambda: subprocess.run(["true"])),
    tried(lambda: os.kill(os.getppid(), 0)), tried(lambda: torch.zeros(2**27)), tried(lambda: torch.zeros(2**10)),
])
"""


def saved(content, zipped=True):
    stream = BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    stream.seek(0)
    return stream


def written(state):
    stream = BytesIO()
    write(state, stream)
    return stream.getvalue()


def sample(dtype, shape):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 9).to(dtype)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_comes_out_as_it_was(dtype, zipped):
    state = {"a.weight": sample(dtype, (3, 5)), "scalar": sample(dtype, ()), "none": sample(dtype, (0, 4))}
    found = load(written(tensors(saved({"state_dict": state, "epoch": 3}, zipped))))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype is dtype
        assert torch.equal(found[name], tensor)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(st.sampled_from(list(TYPES)), st.lists(st.integers(0, 4), max_size=4)),
        min_size=1,
        max_size=8,
    )
)
def test_any_mapping_of_tensors_is_read_back_by_the_format_s_own_library(shapes):
    state = {name: sample(dtype, shape) for name, (dtype, shape) in shapes.items()}
    found = load(written(state))
    assert found.keys() == state.keys()
    assert all(found[name].dtype is t.dtype and torch.equal(found[name], t) for name, t in state.items())


def test_views_and_shared_storages_are_written_out():
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"turned": whole.t(), "part": whole[1:, ::2], "same": whole, "wide": torch.ones(1).expand(6)}
    found = load(written(tensors(saved(state))))
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(2)], "no tensors by name"),
        ({}, "no tensors by name"),
        ({"a": torch.ones(2), "b": 3}, "no tensors by name"),
        ({1: torch.ones(2)}, "no tensors by name"),
        ({"a": torch.eye(3).to_sparse()}, "a is no plain tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is no plain tensor"),
        ({"a": torch.ones(2), "b": os.path.join}, "it names posixpath.join"),
    ],
)
def test_what_is_no_plain_tensor_is_refused_by_name(content, sentence):
    with pytest.raises(Refused, match=sentence):
        tensors(saved(content))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused(share):
    content = saved({"a": torch.ones(1000)}).getvalue()
    with pytest.raises(Refused, match="cut off"):
        tensors(BytesIO(content[: int(len(content) * share)]))


def test_the_reader_s_process_can_do_nothing_but_compute(tmp_path):
    (tmp_path / "there").write_text("x")
    words = [sys.executable, "-c", ATTEMPTS, str(tmp_path / "there"), str(tmp_path / "new")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout.strip() == str(["no"] * 8 + ["yes"]), done.stderr
    assert not (tmp_path / "new").exists()


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "bomb.pth")
    with pytest.raises(ConfigError, match=r"bomb.pth is refused: it takes more room"):
        convert(tmp_path / "bomb.pth", tmp_path / "out", "bomb.pth")
    assert (tmp_path / "out").stat().st_size < 1000


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (written({"a": torch.ones(2)}), True),
        (saved({"a": torch.ones(2)}).getvalue(), False),
        (b"", False),
        (b"{", False),
    ],
)
def test_safetensors_are_known_by_their_beginning(tmp_path, head, expected):
    (tmp_path / "x.pth").write_bytes(head)
    assert is_safetensors(tmp_path / "x.pth") is expected
