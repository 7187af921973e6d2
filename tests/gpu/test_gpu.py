"""What the CPU computes, CUDA computes too. Where there is no such device none of this can be tried: all is skipped."""

import numpy as np
import pytest
import torch

from clipwarden.models.assess import device_failed
from clipwarden.models.backbones.memory import is_out_of_memory
from clipwarden.models.backbones.pictures import in_batches
from clipwarden.models.detector import DETECTORS, detector_class
from tests.items import items, weights_of

NEAR = {"float32": 1e-4, "bfloat16": 2e-2}
"""How far a probability may be from the one that the CPU computes in float32."""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_gives_the_probabilities_of_the_cpu(name, dtype, folder):
    weights, (several, together) = weights_of(name, folder), items(name, 3)
    expected = detector_class(name).load(weights, "cpu").predict(together(several))
    found = detector_class(name).load(weights, "cuda", dtype).predict(together(several))
    probabilities = [1 / (1 + np.exp(-logits)) for logits in (expected, found)]
    assert np.abs(probabilities[0] - probabilities[1]).max() <= NEAR[dtype]


def _takes_a_third(free_bytes, sizes):
    """A network of which every item takes a third of the memory."""

    def through(part):
        sizes.append(len(part))
        room = torch.empty(len(part) * (free_bytes // 3), dtype=torch.uint8, device="cuda")
        return torch.from_numpy(part).to(room.device) * 2

    return through


def test_a_batch_for_which_the_device_has_no_memory_is_halved():
    torch.cuda.empty_cache()
    sizes, given = [], np.arange(6, dtype=np.float32)
    through = _takes_a_third(torch.cuda.mem_get_info()[0], sizes)
    np.testing.assert_array_equal(in_batches(through, given, 4), given * 2)
    assert sizes == [4, 2, 2, 2]
    torch.cuda.empty_cache()


def test_an_item_for_which_the_device_has_no_memory_is_no_fault_of_the_device():
    through = _takes_a_third(6 * torch.cuda.mem_get_info()[1], [])
    with pytest.raises(RuntimeError) as full:
        in_batches(through, np.zeros(2, np.float32), 2)
    assert is_out_of_memory(full.value)
    assert not device_failed(full.value)
