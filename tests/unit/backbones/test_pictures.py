"""Pictures reach a network as it was trained to see them, in batches that fit."""

import weakref

import numpy as np
import pytest
import torch

from clipwarden.models.backbones.pictures import HALVES, IMAGENET, PictureInput, in_batches, infer
from clipwarden.shared.errors import DetectorError
from tests.networks import pictures


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALVES])
def test_levels_are_normalised_channel_by_channel(mean, std):
    shown = pictures(2, 32)
    found = PictureInput(32, mean, std).tensor(shown, torch.device("cpu")).numpy()
    expected = (shown / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_mapped_pictures_that_nobody_may_write_are_taken():
    shown = pictures(2, 32)
    shown.setflags(write=False)
    assert PictureInput(32, *HALVES).tensor(shown, torch.device("cpu")).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 1), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint16),
        np.zeros((1, 31, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
    ],
)
def test_grey_16_bit_and_odd_sized_pictures_are_refused(wrong):
    with pytest.raises(DetectorError, match="pictures must be uint8"):
        infer(torch.nn.Flatten(), PictureInput(32, *HALVES), wrong, 4)


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("error", [FULL, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`")])
def test_out_of_memory_halves_the_batch_and_loses_nothing(error):
    sizes = []

    def through(part):
        sizes.append(len(part))
        if len(part) > 3:
            raise error
        return torch.from_numpy(part) * 2.0

    items = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(in_batches(through, items, 8), items * 2)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_one_item_that_does_not_fit_is_an_error():
    def through(part):
        raise FULL

    with pytest.raises(torch.OutOfMemoryError):
        in_batches(through, np.zeros(4, np.float32), 4)


def test_an_error_that_less_would_not_mend_is_not_tried_again():
    sizes = []

    def through(part):
        sizes.append(len(part))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(through, np.zeros(4, np.float32), 4)
    assert sizes == [4]


def test_what_the_failed_batch_held_is_free_before_memory_is_given_back(monkeypatch):
    held, alive = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]()))

    def through(part):
        activations = torch.from_numpy(part) * 2.0
        held.append(weakref.ref(activations))
        if len(part) > 1:
            raise torch.OutOfMemoryError(str(FULL))
        return activations

    in_batches(through, np.zeros(2, np.float32), 2)
    assert alive == [None]
