"""Items come with a true record, come out the same again, and are washed without a look at their label."""

import hashlib
import json
from dataclasses import replace

import av
import numpy as np
import pytest

from clipwarden.models.training.forge.footage import STILL_FPS
from clipwarden.models.training.forge.forging import ALL_REAL, Forge, Item, Order, record_of
from clipwarden.models.training.forge.recipe import Labels, NotForgeable, Truth
from clipwarden.models.training.forge.recipes import RECIPES, UNTOUCHED, installed, recipe_of
from clipwarden.models.training.forge.washing import CRF, Wash, draw_wash, washed
from clipwarden.models.training.forge.writing import Coding, Timed, recoded, write_clip
from clipwarden.shared.errors import MediaError
from tests.media import faces, scenery, speech, write_sound, write_still
from tests.media import write_clip as write_media

LABELS = {
    "puppet": "FFF",
    "reanimation": "FRF", "face_swap": "FRR", "self_blending": "FRR", "autoencoder": "FRR", "components": "FRR",
    "upsampler": "FRR", "freeze": "FRF", "drop": "FRR", "duplicate": "FRR", "griffin_lim": "RFR",
    "phase_vocoder": "RFR", "lpc": "RFR", "world": "RFR", "conversion": "RFR", "neural_voice": "RFF", "splice": "RFF",
    "time_shift": "RRF", "foreign_speech": "RRF", "untouched": "RRR",
}  # fmt: skip
"""Visual, audio, sync."""
QUICK = [n for n in RECIPES if n not in {"autoencoder", "griffin_lim", "puppet"} and installed(RECIPES[n])]


@pytest.fixture(scope="module")
def plain(forge, own, tmp_path_factory):
    return forge.make(Order(UNTOUCHED), own, None, tmp_path_factory.mktemp("plain") / "plain.mp4")


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def samples(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize("name", RECIPES)
def test_labels_say_which_modality_is_fake(name):
    letters = {"F": Truth.FAKE, "R": Truth.REAL}
    visual, audio, sync = (letters[c] for c in LABELS[name])
    labels = RECIPES[name].labels(ALL_REAL)
    assert labels == Labels(visual=visual, audio=audio, sync=sync)
    assert labels.fake == (name != "untouched")


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_absent_stays_absent(name):
    mute = Labels(visual=Truth.REAL, audio=Truth.ABSENT, sync=Truth.ABSENT)
    labels = RECIPES[name].labels(mute)
    assert (labels.audio, labels.sync) == (Truth.ABSENT, Truth.ABSENT)


@pytest.mark.parametrize("name", QUICK)
def test_a_recipe_touches_only_the_modalities_that_its_labels_call_fake(name, forge, own, other, plain, tmp_path):
    item = forge.make(Order(RECIPES[name]), own, other, tmp_path / "item.mp4")
    assert (item.pictures != plain.pictures) == (RECIPES[name].look is not None)
    assert (item.sound != plain.sound) == (RECIPES[name].listen is not None)
    assert (item.labels.visual is Truth.FAKE) == (item.pictures != plain.pictures)
    assert (Truth.FAKE in (item.labels.audio, item.labels.sync)) >= (item.sound != plain.sound)


def test_the_record_holds_everything_needed_to_make_it_again(forge, own, other, folder, tmp_path):
    out = tmp_path / "swap.mp4"
    item = forge.make(Order(RECIPES["face_swap"], seed=4), own, other, out)
    said = json.loads(record_of(out).read_text())
    assert Item.model_validate(said) == item
    digests = [f"sha256:{hashlib.sha256((folder / n).read_bytes()).hexdigest()}" for n in ("own.mp4", "other.mp4")]
    assert [(s["part"], s["name"], s["digest"]) for s in said["sources"]] == [
        ("clip", "own.mp4", digests[0]),
        ("other", "other.mp4", digests[1]),
    ]
    assert (said["recipe"], said["version"], said["seed"], said["frames"]) == ("face_swap", 1, 4, own.take.frames)
    assert said["made_with"]["numpy"] == np.__version__
    assert sorted(p.name for p in tmp_path.iterdir()) == ["swap.mp4", "swap.mp4.json"]


@pytest.mark.parametrize("name", ["reanimation", "splice"])
def test_the_same_seed_makes_the_same_frames_and_samples_and_another_seed_others(name, fence, folder, tmp_path):
    made = {}
    for out, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2)):
        forge = Forge(fence, 0.5)
        made[out] = forge.make(Order(RECIPES[name], seed), forge.look(folder / "own.mp4"), None, tmp_path / out)
    assert made["a.mp4"] == made["b.mp4"]
    assert np.array_equal(decoded(tmp_path / "a.mp4"), decoded(tmp_path / "b.mp4"))
    assert np.array_equal(samples(tmp_path / "a.mp4"), samples(tmp_path / "b.mp4"))
    assert made["a.mp4"].parameters != made["c.mp4"].parameters
    assert (made["a.mp4"].pictures, made["a.mp4"].sound) != (made["c.mp4"].pictures, made["c.mp4"].sound)


def test_an_item_is_h264_with_aac_and_plays_as_long_as_its_clip(forge, own, plain, tmp_path):
    forge.make(Order(RECIPES["self_blending"]), own, None, tmp_path / "item.mp4")
    with av.open(str(tmp_path / "item.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert float(video.duration * video.time_base) == pytest.approx(own.take.frames / 25, abs=0.05)
        assert float(audio.duration * audio.time_base) == pytest.approx(1.4, abs=0.1)
        assert float(video.average_rate) == 25


def test_what_is_left_out_leaves_the_other_frames_their_times(forge, own, tmp_path):
    item = forge.make(Order(RECIPES["drop"], seed=3), own, None, tmp_path / "item.mp4")
    with av.open(str(tmp_path / "item.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == item.frames < own.take.frames
    assert times[0] == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(np.array(times) * 25, np.round(np.array(times) * 25), atol=0.02)
    assert max(np.diff(times)) > 0.07


def test_a_picture_alone_is_made_to_move_and_nothing_else(forge, tmp_path):
    still = forge.look(write_still(tmp_path / "still.png", next(faces(1, 200, 200))))
    item = forge.make(Order(RECIPES["reanimation"]), still, None, tmp_path / "item.mp4")
    assert item.frames == 4 * STILL_FPS
    assert item.labels == Labels(visual=Truth.FAKE, audio=Truth.ABSENT, sync=Truth.ABSENT)
    with pytest.raises(NotForgeable, match="self_blending needs moving pictures, which there is not"):
        forge.make(Order(RECIPES["self_blending"]), still, None, tmp_path / "other.mp4")


def test_sound_alone_comes_back_as_sound(forge, tmp_path):
    clip = forge.look(write_sound(tmp_path / "speech.flac", speech(0.5)))
    item = forge.make(Order(RECIPES["lpc"]), clip, None, tmp_path / "fake.flac")
    assert item.labels == Labels(visual=Truth.ABSENT, audio=Truth.FAKE, sync=Truth.ABSENT)
    assert len(samples(tmp_path / "fake.flac")) == 8000
    with pytest.raises(NotForgeable, match=r"must end in .flac or .wav"):
        forge.make(Order(RECIPES["lpc"]), clip, None, tmp_path / "fake.mp4")


def test_both_labels_are_washed_alike(forge, own, tmp_path):
    fake = Labels(visual=Truth.FAKE, audio=Truth.UNKNOWN, sync=Truth.UNKNOWN)
    real = forge.make(Order(UNTOUCHED, wash=True), own, None, tmp_path / "real.mp4")
    same = forge.make(Order(UNTOUCHED, wash=True, before=fake), own, None, tmp_path / "fake.mp4")
    made = forge.make(Order(RECIPES["duplicate"], wash=True), own, None, tmp_path / "made.mp4")
    assert (real.wash, real.pictures, real.sound) == (same.wash, same.pictures, same.sound)
    assert made.wash == real.wash
    assert real.labels == ALL_REAL
    assert same.labels == fake


def test_washes_cover_every_codec_once_twice_and_thrice():
    drawn = [draw_wash(np.random.default_rng(k), 1920, 1080) for k in range(60)]
    assert {c.codec for w in drawn for c in w.codings} == set(CRF)
    assert {len(w.codings) for w in drawn} == {1, 2, 3}
    assert all(CRF[c.codec][0] <= c.crf <= CRF[c.codec][1] for w in drawn for c in w.codings)
    assert len({w.side_px for w in drawn}) > 4
    assert {bool(w.noise) for w in drawn} == {bool(w.blur_px) for w in drawn} == {True, False}
    assert draw_wash(np.random.default_rng(0), 320, 240).side_px == 0


@pytest.mark.parametrize("codec", CRF)
def test_a_worse_quality_is_further_from_the_picture(codec):
    frames = [Timed(k / 25, image) for k, image in enumerate(faces(4, 160, 160))]
    errors = []
    for crf in CRF[codec]:
        back = list(recoded(frames, 25, Coding(codec=codec, crf=crf)))
        assert [round(t.time_s * 25) for t in back] == [0, 1, 2, 3]
        errors.append(
            np.mean([np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(frames, back, strict=True)])
        )
    assert 0.3 < errors[0] < errors[1] < 20


def test_a_platform_makes_pictures_smaller_blurred_and_noisy():
    wash = Wash(side_px=320, kernel="area", blur_px=1.0, noise=0.0, codings=(Coding(),), channel="none")
    frames = [Timed(0.0, image) for image in scenery(1, 640, 400)]
    small = next(washed(frames, 25, wash, np.random.default_rng(0))).image
    noisy = next(washed(frames, 25, wash.model_copy(update={"noise": 5.0}), np.random.default_rng(0))).image
    assert small.shape == (200, 320, 3)
    assert np.std(noisy.astype(float) - small) == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(
    ("name", "clip", "other", "words"),
    [
        ("griffin_lim", "mute.mp4", None, "griffin_lim needs at least 0.5 s of sound"),
        ("time_shift", "dumb.mp4", None, "time_shift needs at least 0.5 s of sound"),
        ("face_swap", "own.mp4", None, "another clip with such a face"),
        ("foreign_speech", "own.mp4", "mute.mp4", "another clip with such sound"),
    ],
)
def test_what_a_recipe_lacks_is_said(name, clip, other, words, forge, folder, tmp_path):
    footage, second = (forge.look(folder / n) if n else None for n in (clip, other))
    with pytest.raises(NotForgeable, match=words):
        forge.make(Order(RECIPES[name]), footage, second, tmp_path / "item.mp4")
    assert not list(tmp_path.iterdir())


def test_clips_without_a_face_of_some_size_are_refused(forge, tmp_path):
    scene = forge.look(write_media(tmp_path / "scene.mp4", scenery(8), None))
    far = forge.look(write_media(tmp_path / "far.mp4", faces(6, 64, 64), None))
    for clip in (scene, far):
        with pytest.raises(NotForgeable, match="a face of at least 48 pixels"):
            forge.make(Order(RECIPES["self_blending"]), clip, None, tmp_path / "item.mp4")
    assert forge.make(Order(RECIPES["freeze"]), scene, None, tmp_path / "item.mp4").frames == 8


def test_one_frame_and_tiny_pictures_are_refused(forge, tmp_path):
    one = forge.look(write_media(tmp_path / "one.mp4", scenery(1), None))
    with pytest.raises(NotForgeable, match="freeze needs moving pictures"):
        forge.make(Order(RECIPES["freeze"]), one, None, tmp_path / "item.mp4")
    with pytest.raises(NotForgeable, match="9 x 9 are too small"):
        write_clip(tmp_path / "item.mp4", [Timed(0.0, np.zeros((9, 9, 3), np.uint8))], 25, np.zeros(0, np.float32), 0)
    assert not list(tmp_path.glob("*item*"))


def test_a_stream_that_changes_its_size_is_written_at_its_first(tmp_path):
    frames = [Timed(k / 25, np.full((side, side, 3), 99, np.uint8)) for k, side in enumerate((64, 64, 48, 80))]
    assert write_clip(tmp_path / "item.mp4", frames, 25, np.zeros(0, np.float32), 0) == 4
    assert {image.shape for image in decoded(tmp_path / "item.mp4")} == {(64, 64, 3)}


def test_a_file_that_is_no_media_is_refused_by_the_fence(forge, tmp_path):
    (tmp_path / "text.mp4").write_text("not a film")
    with pytest.raises(MediaError):
        forge.look(tmp_path / "text.mp4")


def test_the_clip_itself_is_never_overwritten(forge, own, tmp_path):
    with pytest.raises(NotForgeable, match="is the clip itself"):
        forge.make(Order(UNTOUCHED), own, None, own.path)
    with pytest.raises(NotForgeable, match="there is no folder"):
        forge.make(Order(UNTOUCHED), own, None, tmp_path / "none" / "item.mp4")
    with pytest.raises(NotForgeable, match=r"must end in .mp4"):
        forge.make(Order(UNTOUCHED), own, None, tmp_path / "item.webm")


def test_an_unknown_recipe_and_one_without_its_package_are_said(monkeypatch):
    with pytest.raises(NotForgeable, match="there is no recipe 'magic'; there are puppet"):
        recipe_of("magic")
    monkeypatch.setitem(RECIPES, "world", replace(RECIPES["world"], package="no_such_package"))
    with pytest.raises(NotForgeable, match="needs the Python package 'no_such_package'"):
        recipe_of("world")
