"""The resize kernels against the libraries they are named after."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from clipwarden.models.kernels import resize
from clipwarden.shared.contracts import Kernel

SHAPES = [(1080, 1920), (480, 854), (1280, 720), (300, 224), (224, 224), (100, 100), (90, 700), (23, 41), (1, 1)]
PILLOW = {Kernel.PIL_BILINEAR: Image.Resampling.BILINEAR, Kernel.PIL_BICUBIC: Image.Resampling.BICUBIC}


def picture(height: int, width: int) -> np.ndarray:
    """A photograph above, noise below."""
    image = cv2.resize(data.astronaut(), (width, height))
    noise = np.random.default_rng(height * width).integers(0, 256, image.shape, dtype=np.uint8)
    image[height // 2 :] = noise[height // 2 :]
    return image


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [112, 224, 384])
@pytest.mark.parametrize("kernel", PILLOW)
def test_the_pillow_kernels_are_within_one_grey_level_of_pillow(shape, size, kernel):
    image = picture(*shape)
    expected = np.asarray(Image.fromarray(image).resize((size, size), PILLOW[kernel]))
    assert np.abs(resize(image, size, kernel).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(300, 224), (100, 100), (90, 700), (23, 41), (5, 400), (1, 1)])
def test_bicubic_is_pillows_own_where_it_grows(shape):
    image = picture(*shape)
    expected = np.asarray(Image.fromarray(image).resize((384, 384), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, 384, Kernel.PIL_BICUBIC), expected)


@pytest.mark.parametrize(("shape", "how"), [((480, 854), cv2.INTER_AREA), ((90, 100), cv2.INTER_LINEAR)])
def test_area_is_opencvs_area_where_it_shrinks_and_linear_where_it_grows(shape, how):
    image = picture(*shape)
    expected = cv2.resize(image, (224, 224), interpolation=how)
    np.testing.assert_array_equal(resize(image, 224, Kernel.CV2_AREA), expected)


@pytest.mark.parametrize("shape", [(100, 1120), (1120, 100)])
def test_area_averages_the_side_that_shrinks_although_the_other_grows(shape):
    wide = shape[1] > shape[0]
    stripes = np.indices(shape)[int(wide)] % 2 * 255
    square = resize(np.repeat(stripes[..., None], 3, axis=2).astype(np.uint8), 224, Kernel.CV2_AREA)
    assert square.shape == (224, 224, 3)
    assert np.abs(square.astype(float) - 127.5).max() <= 52  # five stripes to a pixel are two to three of a kind


def test_linear_is_opencvs_linear():
    image = picture(480, 854)
    np.testing.assert_array_equal(resize(image, 224, Kernel.CV2_LINEAR), cv2.resize(image, (224, 224)))


@pytest.mark.parametrize("kernel", Kernel)
def test_a_read_only_slice_of_a_frame_is_resized_like_a_copy(kernel):
    frame = picture(480, 640)
    frame.setflags(write=False)
    part = frame[100:400, 50:350]
    np.testing.assert_array_equal(resize(part, 112, kernel), resize(part.copy(), 112, kernel))


@pytest.mark.parametrize("kernel", Kernel)
def test_what_comes_out_shares_no_memory_with_the_frame(kernel):
    frame = picture(64, 64)
    assert not np.shares_memory(resize(frame, 64, kernel), frame)
