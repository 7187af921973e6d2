"""What a sick or a full device does to an analysis, and which device is taken."""

import numpy as np
import pytest
import torch

from clipwarden.models.assess import Loaded, assess, pick_device
from clipwarden.models.audio.cqcc_cnn import CqccCnn
from clipwarden.models.graphs import network_of
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.weights import verified
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import FailCode
from clipwarden.shared.contracts import Branch, OutcomeStatus
from clipwarden.shared.errors import WorkerFault
from clipwarden.shared.settings import Settings


class Failing:
    """A detector on a device that fails."""

    def __init__(self, error):
        self._error = error

    def assess(self, _clip):
        raise self._error


def judged(error):
    (entry,) = (d for d in local_manifest().detectors if d.name == "cqcc_cnn")
    return assess(Branch.AUDIO, Clip(duration_s=1), [Loaded(entry, Failing(error))])


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_an_error_of_the_device_is_the_workers_fault_and_no_finding(said):
    with pytest.raises(WorkerFault, match="the device failed"):
        judged(RuntimeError(said))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
        MemoryError(),
    ],
)
def test_a_clip_too_large_for_the_device_fails_alone(error):
    outcome = judged(error).detectors[0]
    assert (outcome.status, outcome.code) == (OutcomeStatus.FAILED, FailCode.OUT_OF_MEMORY)


def test_a_detector_on_a_full_device_halves_its_batch_and_finds_the_same():
    detector = CqccCnn.load(verified("cqcc_cnn"), "cpu")
    rows = np.random.default_rng(0).normal(size=(9, 90, 32)).astype(np.float32)
    expected, sizes = detector.predict(rows), []

    def fill_up(module, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    network_of(detector).register_forward_pre_hook(fill_up)
    np.testing.assert_allclose(detector.predict(rows), expected, rtol=1e-5, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_the_device_is_the_one_that_is_set(monkeypatch, device):
    monkeypatch.setenv("CLIPWARDEN_DEVICE", device)
    assert pick_device(Settings().device) == device


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_device_that_is_left_open_is_a_gpu_where_there_is_one(monkeypatch, there, device):
    monkeypatch.delenv("CLIPWARDEN_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device(Settings().device) == device
