import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipwarden.shared.packing import packed, unpacked

SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))


@settings(deadline=None)
@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_pictures_come_back_bit_by_bit(pictures):
    back = unpacked(packed(pictures), pictures.shape)
    assert (back.dtype, back.shape) == (np.uint8, pictures.shape)
    assert np.array_equal(back, pictures)


def test_the_bytes_are_zstandard_of_the_differences_of_rows():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed(pictures).tobytes())
    steps = np.frombuffer(plain, np.uint8).reshape(pictures.shape).astype(int)
    assert np.array_equal(steps[:, 0], pictures[:, 0])
    assert np.array_equal(steps[:, 1:], (pictures[:, 1:].astype(int) - pictures[:, :-1]) % 256)


def test_pictures_that_change_slowly_take_half():
    slopes = np.arange(400)[:, None, None] // 3 + np.arange(400)[None, :, None] // 5 + np.arange(3) * 20
    grain = np.random.default_rng(1).integers(0, 8, (4, 400, 400, 3))
    pictures = (slopes + grain).astype(np.uint8)
    assert packed(pictures).nbytes < pictures.nbytes / 2


@pytest.mark.parametrize("shape", [(2, 5, 4, 2), (2, 5, 4, 4), (3, 5, 4, 3)])
def test_another_shape_is_refused(shape):
    content = packed(np.ones((2, 5, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="packed pictures are not"):
        unpacked(content, shape)


def test_what_is_not_packed_or_cut_off_is_refused():
    whole = packed(np.random.default_rng(2).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8))
    for content in (whole[:-9], whole[3:], np.zeros(0, np.uint8)):
        with pytest.raises(ValueError, match="packed pictures"):
            unpacked(content, (2, 9, 9, 3))
