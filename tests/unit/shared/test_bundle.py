from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.bundle import (
    PART_FORMAT,
    BundleFacts,
    read_manifest,
    read_part,
    versions,
    write_bundle,
)
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.contracts import Branch, FrameNeed, MediaKind, MediaProbe, SamplingPlan, SoundPlan, ViewPlan
from clipwarden.shared.errors import BlobGone, Unavailable
from clipwarden.shared.ids import new_id

ANALYSIS = UUID(int=5)
PROBE = MediaProbe(
    kind=MediaKind.VIDEO,
    container="mp4",
    duration_s=1 / 3,
    width=64,
    height=48,
    fps=30,
    frames=10,
    has_video=True,
    has_audio=True,
    size_bytes=999,
)
PLAN = SamplingPlan(
    views=(ViewPlan(need=FrameNeed(view="face", count=3, size_px=32), frame_indices=(0, 4, 9)),),
    sounds=(SoundPlan(sample_rate_hz=16_000, spans=((0.0, 0.25),)),),
)
FACTS = BundleFacts(pipeline="sha256:p", probe=PROBE, plan=PLAN, versions={"clipwarden": "9"})


def view(rng: np.random.Generator, count: int, side: int) -> View:
    return View(
        images=rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8),
        frames=np.sort(rng.integers(0, 1000, count)),
        times_s=np.sort(rng.random(count)),
        boxes=rng.random((count, 4)).astype(np.float32),
        people=rng.integers(0, 3, count).astype(np.int16),
        landmarks=rng.random((count, 5, 2)).astype(np.float32),
        quality=rng.random((count, 3)).astype(np.float32),
    )


def sound(rng: np.random.Generator, *lengths: int) -> Sound:
    wave = rng.integers(-32768, 32768, sum(lengths)).astype(np.int16)
    return Sound(wave, np.arange(len(lengths), dtype=np.float64), np.array(lengths, np.int64))


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    made = LocalBlobs(tmp_path / "blobs")
    made.set_up("one")
    return made


@pytest.fixture
def clips() -> dict[Branch, Clip]:
    """Three branches: `both` is the same view for two of them, the sound at 16 kHz too."""
    rng = np.random.default_rng(0)
    both, speech = view(rng, 5, 32), sound(rng, 1234, 0, 7)
    return {
        Branch.VISUAL: Clip({"both": both, "own": view(rng, 3, 17), "none": view(rng, 0, 8)}, {}, 1 / 3),
        Branch.AUDIO: Clip({}, {16_000: speech, 22_050: sound(rng, 333)}, 1 / 3),
        Branch.LIPSYNC: Clip({"both": both}, {16_000: speech}, 1 / 3),
    }


@pytest.fixture
def parts(blobs: LocalBlobs, clips: dict[Branch, Clip]) -> dict[str, Path]:
    """A written bundle's files, by the branches they are for."""
    write_bundle(blobs, ANALYSIS, clips, FACTS)
    manifest = read_manifest(blobs, ANALYSIS)
    return {"+".join(part.branches): blobs.path(part.key) for part in manifest.parts}


def arrays(clip: Clip) -> dict[str, Any]:
    named = {**clip.views, **{str(rate): one for rate, one in clip.sounds.items()}}
    return {f"{name}/{field.name}": getattr(one, field.name) for name, one in named.items() for field in fields(one)}


@pytest.mark.parametrize("branch", [Branch.VISUAL, Branch.AUDIO, Branch.LIPSYNC])
def test_a_branch_gets_its_clip_back_bit_by_bit(
    blobs: LocalBlobs, clips: dict[Branch, Clip], parts: dict[str, Path], branch: Branch
) -> None:
    back, expected = arrays(read_part(blobs, ANALYSIS, branch)), arrays(clips[branch])
    assert set(back) == set(expected)
    for name, array in expected.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        assert np.array_equal(back[name], array), name
    assert read_part(blobs, ANALYSIS, branch).duration_s == 1 / 3


def test_what_several_branches_need_is_stored_once_and_only_they_read_it(
    clips: dict[Branch, Clip], parts: dict[str, Path]
) -> None:
    assert set(parts) == {"visual", "audio", "visual+lipsync", "audio+lipsync"}
    stored = [name for path in parts.values() for name in load_file(path)]
    assert len(stored) == len(set(stored)) == 3 * len(fields(View)) + 2 * len(fields(Sound))
    assert set(load_file(parts["visual+lipsync"])) == {f"view/both/{field.name}" for field in fields(View)}


def test_the_same_key_for_different_pictures_is_kept_apart(blobs: LocalBlobs) -> None:
    rng = np.random.default_rng(1)
    clips = {branch: Clip({"v": view(rng, 2, 8)}) for branch in (Branch.VISUAL, Branch.CLIP)}
    write_bundle(blobs, ANALYSIS, clips, FACTS)
    for branch, clip in clips.items():
        assert np.array_equal(read_part(blobs, ANALYSIS, branch).views["v"].images, clip.views["v"].images)


def test_safetensors_own_reader_agrees(clips: dict[Branch, Clip], parts: dict[str, Path]) -> None:
    loaded = load_file(parts["visual"])
    for key in ("own", "none"):
        for field in fields(View):
            written = getattr(clips[Branch.VISUAL].views[key], field.name)
            assert loaded[f"view/{key}/{field.name}"].dtype == written.dtype
            assert np.array_equal(loaded[f"view/{key}/{field.name}"], written)


def test_large_pictures_are_stored_packed_and_come_back_bit_by_bit(blobs: LocalBlobs) -> None:
    large = view(np.random.default_rng(3), 2, 384)
    large.images[...] //= 64
    write_bundle(blobs, ANALYSIS, {Branch.CLIP: Clip({"large": large})}, FACTS)
    stored = load_file(next(blobs.root.rglob("*.safetensors")))
    assert "view/large/images" not in stored
    assert stored["view/large/images.packed"].nbytes < large.images.nbytes / 2
    back = read_part(blobs, ANALYSIS, Branch.CLIP).views["large"]
    assert np.array_equal(back.images, large.images)
    assert np.array_equal(back.boxes, large.boxes)


def test_arrays_are_mapped_aligned_and_writing_to_them_leaves_the_file_alone(
    blobs: LocalBlobs, parts: dict[str, Path]
) -> None:
    before = parts["audio+lipsync"].read_bytes()
    back = read_part(blobs, ANALYSIS, Branch.LIPSYNC)
    for array in arrays(back).values():
        assert not array.flags.owndata
        assert array.flags.aligned
    back.sounds[16_000].wave[:] = 0
    assert parts["audio+lipsync"].read_bytes() == before


def test_arrays_that_do_not_lie_in_one_piece_are_stored_as_they_look(blobs: LocalBlobs) -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)[:, ::-1, :, ::-1]
    write_bundle(blobs, ANALYSIS, {Branch.VISUAL: Clip({"v": View.of(images, np.zeros(2))})}, FACTS)
    assert np.array_equal(read_part(blobs, ANALYSIS, Branch.VISUAL).views["v"].images, images)


def test_the_manifest_tells_what_was_read_by_what_and_what_each_part_is(
    blobs: LocalBlobs, clips: dict[Branch, Clip]
) -> None:
    sizes = write_bundle(blobs, ANALYSIS, clips, FACTS)
    manifest = read_manifest(blobs, ANALYSIS)
    assert (manifest.pipeline, manifest.probe, manifest.plan) == ("sha256:p", PROBE, PLAN)
    assert (manifest.versions, manifest.branches) == ({"clipwarden": "9"}, tuple(clips))
    assert {"+".join(part.branches): part.size_bytes for part in manifest.parts} == sizes
    assert {
        name: blobs.path(part.key).stat().st_size for name, part in zip(sizes, manifest.parts, strict=True)
    } == sizes


def test_the_versions_are_those_of_everything_that_reads_a_file() -> None:
    assert set(versions("mtcnn")) == {"clipwarden", "pyav", "ffmpeg", "faces"}
    assert all(versions("mtcnn").values())


def test_a_branch_without_pictures_or_sound_is_possible_and_one_that_was_left_out_is_not(blobs: LocalBlobs) -> None:
    write_bundle(blobs, ANALYSIS, {Branch.AUDIO: Clip(duration_s=2.0)}, FACTS)
    assert read_part(blobs, ANALYSIS, Branch.AUDIO) == Clip(duration_s=2.0)
    with pytest.raises(BlobGone, match="without clip"):
        read_part(blobs, ANALYSIS, Branch.CLIP)


def test_a_bundle_made_again_has_parts_of_its_own_while_the_old_ones_are_read(
    blobs: LocalBlobs, clips: dict[Branch, Clip], parts: dict[str, Path]
) -> None:
    held = read_part(blobs, ANALYSIS, Branch.AUDIO)
    again = {Branch.AUDIO: Clip({}, {16_000: Sound.whole(np.ones(9, np.int16))})}
    write_bundle(blobs, ANALYSIS, again, FACTS)
    assert read_part(blobs, ANALYSIS, Branch.AUDIO).sounds[16_000].wave.tolist() == [1] * 9
    assert np.array_equal(held.sounds[16_000].wave, clips[Branch.AUDIO].sounds[16_000].wave)
    blobs.delete_bundle(ANALYSIS)
    assert list(blobs.keys()) == []


def test_a_bundle_that_cannot_be_finished_leaves_the_one_before_and_nothing_else(
    blobs: LocalBlobs, clips: dict[Branch, Clip], parts: dict[str, Path]
) -> None:
    before = list(blobs.keys())
    manifest = next(blobs.root.rglob("bundle.json"))
    content = manifest.read_bytes()
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(Unavailable):
        write_bundle(blobs, ANALYSIS, clips, FACTS)
    manifest.rmdir()
    manifest.write_bytes(content)
    assert list(blobs.keys()) == before


@pytest.mark.parametrize("keep", [0, 5, 200, 1000, -1])
def test_a_cut_part_is_gone(blobs: LocalBlobs, parts: dict[str, Path], keep: int) -> None:
    parts["visual"].write_bytes(parts["visual"].read_bytes()[:keep])
    with pytest.raises(BlobGone, match="is not what was written"):
        read_part(blobs, ANALYSIS, Branch.VISUAL)
    assert read_part(blobs, ANALYSIS, Branch.AUDIO).sounds


def test_a_missing_part_and_a_missing_bundle_are_gone(blobs: LocalBlobs, parts: dict[str, Path]) -> None:
    parts["visual"].unlink()
    with pytest.raises(BlobGone):
        read_part(blobs, ANALYSIS, Branch.VISUAL)
    with pytest.raises(BlobGone):
        read_part(blobs, new_id(), Branch.VISUAL)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"view/own/images": np.zeros((1, 8, 8, 3), np.uint8)}, {"format": "another"}),
        ({"view/own/images": np.zeros((1, 8, 8, 3), np.uint8)}, {"format": PART_FORMAT}),
        ({"view/own/images.packed": np.zeros(9, np.uint8)}, {"format": PART_FORMAT}),
        (
            {"view/own/images.packed": np.zeros(9, np.uint8), "view/own/images.shape": np.full(4, 3)},
            {"format": PART_FORMAT},
        ),
        ({"noise/own/images": np.zeros(3, np.uint8)}, {"format": PART_FORMAT}),
        ({"view/own/images": np.zeros(3, np.uint16)}, {"format": PART_FORMAT}),
    ],
)
def test_a_part_with_other_contents_is_gone(
    blobs: LocalBlobs, parts: dict[str, Path], tensors: dict[str, Any], metadata: dict[str, str]
) -> None:
    save_file(tensors, parts["visual"], metadata)
    manifest = next(blobs.root.rglob("bundle.json"))
    old = next(part for part in read_manifest(blobs, ANALYSIS).parts if part.branches == (Branch.VISUAL,))
    size = f'"size_bytes":{parts["visual"].stat().st_size}'
    manifest.write_text(manifest.read_text().replace(f'"size_bytes":{old.size_bytes}', size))
    with pytest.raises(BlobGone):
        read_part(blobs, ANALYSIS, Branch.VISUAL)


def test_a_manifest_of_another_format_is_gone(blobs: LocalBlobs, parts: dict[str, Path]) -> None:
    manifest = next(blobs.root.rglob("bundle.json"))
    manifest.write_text(manifest.read_text().replace("clipwarden-bundle/1", "clipwarden-bundle/0"))
    with pytest.raises(BlobGone, match="manifest cannot be read"):
        read_part(blobs, ANALYSIS, Branch.VISUAL)
