from pathlib import Path

import numpy as np
import pytest

from clipwarden.shared.bundle import read_facts, read_part, write_part
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.errors import Unavailable


def view(rng: np.random.Generator, count: int, side: int) -> View:
    return View(
        rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8),
        np.sort(rng.random(count)),
        rng.random((count, 4)).astype(np.float32),
    )


@pytest.fixture
def clip() -> Clip:
    rng = np.random.default_rng(0)
    views = {
        "face-32px-m0.3-n5": view(rng, 5, 32),
        "frame-17px-m0-n3": view(rng, 3, 17),
        "face-8px-m0-n1": view(rng, 0, 8),
    }
    return Clip(views, rng.integers(-32768, 32768, 12_345).astype(np.int16), 16_000, 1 / 3)


def test_a_part_comes_back_bit_by_bit(clip: Clip, tmp_path: Path) -> None:
    size = write_part(tmp_path / "deep" / "visual", clip, {"analysis": "x"})
    back = read_part(tmp_path / "deep" / "visual")
    assert size == (tmp_path / "deep" / "visual").stat().st_size
    assert (back.sample_rate_hz, back.duration_s) == (clip.sample_rate_hz, clip.duration_s)
    assert np.array_equal(back.wave, clip.wave)
    assert back.wave.dtype == np.int16
    assert set(back.views) == set(clip.views)
    for key, written in clip.views.items():
        for field in ("images", "times_s", "boxes"):
            read, expected = getattr(back.views[key], field), getattr(written, field)
            assert read.dtype == expected.dtype
            assert np.array_equal(read, expected)


def test_a_part_without_pictures_or_sound_is_possible(tmp_path: Path) -> None:
    write_part(tmp_path / "audio", Clip(), {})
    back = read_part(tmp_path / "audio")
    assert (back.views, len(back.wave)) == ({}, 0)


def test_facts_are_read_without_the_arrays(clip: Clip, tmp_path: Path) -> None:
    write_part(tmp_path / "visual", clip, {"analysis_id": "1", "branch": "visual"})
    assert read_facts(tmp_path / "visual") == {"analysis_id": "1", "branch": "visual"}


def test_arrays_are_mapped_and_writing_to_them_leaves_the_file_alone(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "visual"
    write_part(path, clip, {})
    before = path.read_bytes()
    back = read_part(path)
    assert not back.wave.flags.owndata
    back.wave[:] = 0
    assert path.read_bytes() == before


def test_writing_again_replaces_the_part_and_leaves_no_draft(clip: Clip, tmp_path: Path) -> None:
    write_part(tmp_path / "visual", Clip(), {})
    write_part(tmp_path / "visual", clip, {})
    assert [p.name for p in tmp_path.iterdir()] == ["visual"]
    assert len(read_part(tmp_path / "visual").wave) == 12_345


@pytest.mark.parametrize("keep", [0, 5, 200, 1000, -1])
def test_a_cut_part_is_unavailable(clip: Clip, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "visual"
    write_part(path, clip, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Unavailable, match="visual cannot be read"):
        read_part(path)


def test_a_missing_or_foreign_file_is_unavailable(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(Unavailable):
        read_part(tmp_path / "gone")
    save_file({"wave": np.zeros(3, np.int16)}, tmp_path / "foreign")
    with pytest.raises(Unavailable, match="not a clipwarden-part/1 file"):
        read_part(tmp_path / "foreign")
