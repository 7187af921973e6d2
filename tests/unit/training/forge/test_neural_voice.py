"""The neural voice says drawn or given words, as long and as loud as the clip's own speech, without a network."""

import csv
import json
import sys

import av
import numpy as np
import pytest
import soxr

from clipwarden.models.audio.speech import CHUNK, speech_network
from clipwarden.models.training.forge import commands
from clipwarden.models.training.forge.forge_set import SetPlan, forge_set
from clipwarden.models.training.forge.forging import Order, record_of
from clipwarden.models.training.forge.neural_voice import NEURAL_VOICE, SENTENCES
from clipwarden.models.training.forge.recipe import Labels, NotForgeable, Sources, Take, Truth, seeded
from clipwarden.models.training.forge.recipes import RECIPES, recipe_of
from clipwarden.models.training.speech_data import read_wave
from clipwarden.shared.errors import ConfigError
from tests.media import RATE_HZ, silence, speech, write_sound


def take(wave, rate_hz=RATE_HZ):
    return Take("sha256:" + "0" * 64, 0, 0.0, 0, 0, np.asarray(wave, np.float32), rate_hz)


def made(clip, seed=0, words=None):
    """What is said, and the clip's new sound."""
    rng = seeded(seed, NEURAL_VOICE.name)
    drawn = NEURAL_VOICE.draw(rng)
    said = NEURAL_VOICE.say(clip, words, drawn, rng)
    return said.words, NEURAL_VOICE.listen(Sources(clip, speech=said), drawn, rng)


def spoken(seconds=4.0):
    return speech(seconds, seed=1).astype(np.float32) / 32768


def rms(wave):
    return np.sqrt(np.mean(np.square(wave, dtype=np.float64)))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_it_is_speech_as_long_and_as_loud_as_the_clip(rate_hz):
    own = take(soxr.resample(spoken(), RATE_HZ, rate_hz), rate_hz)
    _, wave = made(own)
    assert wave.dtype == np.float32
    assert len(wave) == len(own.wave)
    assert rms(wave) == pytest.approx(rms(own.wave), rel=0.1)
    assert abs(np.corrcoef(wave, own.wave)[0, 1]) < 0.2
    heard = speech_network().hears(soxr.resample(wave, rate_hz, RATE_HZ))
    assert heard.mean() > 0.65
    assert np.flatnonzero(heard)[-1] * CHUNK > 3.7 * RATE_HZ


def test_only_the_clips_own_speech_is_replaced():
    floor = np.random.default_rng(0).normal(0, 1e-4, RATE_HZ).astype(np.float32)
    wave = made(take(np.concatenate([floor, spoken(2.0), floor])))[1]
    assert np.array_equal(wave[: RATE_HZ // 2], floor[: RATE_HZ // 2])
    assert np.array_equal(wave[-RATE_HZ // 4 :], floor[-RATE_HZ // 4 :])
    assert rms(wave[RATE_HZ : 3 * RATE_HZ]) == pytest.approx(rms(spoken(2.0)), rel=0.2)


def test_the_words_and_samples_come_out_the_same_with_a_seed_and_differ_with_another():
    (words, wave), (again, same), (others, other) = (made(take(spoken()), seed) for seed in (1, 1, 2))
    assert words == again
    assert np.array_equal(wave, same)
    assert words != others
    assert not np.array_equal(wave, other)
    assert any(sentence.startswith(words[:20]) for sentence in SENTENCES)


def test_given_words_are_said_as_often_as_there_is_room():
    assert made(take(spoken(1.0)), words="Send the money today.")[0].startswith("Send the money")
    assert made(take(spoken(6.0)), words="Send the money today.")[0].count("today.") > 2


@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_the_shortest_sound_without_speech_gets_a_word(rate_hz):
    noise = (0.1 * np.random.default_rng(0).standard_normal(rate_hz // 2)).astype(np.float32)
    words, wave = made(take(noise, rate_hz))
    assert words
    assert len(wave) == len(noise)
    assert rms(wave) > 0.01


@pytest.mark.parametrize("words", ["", "?!", "你好"])
def test_words_that_cannot_be_read_are_refused(words):
    with pytest.raises(NotForgeable, match=r"reads English, and there is none in"):
        made(take(spoken()), words=words)


def test_the_record_of_sound_alone_names_package_voice_and_words(forge, tmp_path):
    clip = forge.look(write_sound(tmp_path / "speech.flac", speech(1.5)))
    item = forge.make(Order(NEURAL_VOICE, words="This is my own voice."), clip, None, tmp_path / "fake.flac")
    said = json.loads(record_of(tmp_path / "fake.flac").read_text())
    assert said["speech"]["voice"] == "heart"
    assert said["speech"]["words"].startswith("This is my")
    assert said["made_with"]["hibari-tts"] == "0.2.1"
    assert item.labels == Labels(visual=Truth.ABSENT, audio=Truth.FAKE, sync=Truth.ABSENT)
    with av.open(str(tmp_path / "fake.flac")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == len(clip.take.wave)


def test_the_pictures_stay_and_the_voice_no_longer_belongs_to_them(forge, own, tmp_path):
    plain = forge.make(Order(RECIPES["untouched"]), own, None, tmp_path / "plain.mp4")
    item = forge.make(Order(NEURAL_VOICE), own, None, tmp_path / "item.mp4")
    assert item.pictures == plain.pictures
    assert item.sound != plain.sound
    assert item.labels == Labels(visual=Truth.REAL, audio=Truth.FAKE, sync=Truth.FAKE)


def test_a_recipe_that_says_nothing_refuses_words(forge, own, tmp_path):
    with pytest.raises(NotForgeable, match="splice says no words"):
        forge.make(Order(RECIPES["splice"], words="Hello."), own, None, tmp_path / "item.mp4")
    assert not list(tmp_path.iterdir())


def test_silence_is_not_spoken_over(forge, tmp_path):
    mute = forge.look(write_sound(tmp_path / "mute.flac", silence(1.0)))
    with pytest.raises(NotForgeable, match="neural_voice needs at least"):
        forge.make(Order(NEURAL_VOICE), mute, None, tmp_path / "fake.flac")


def test_the_command_says_the_words_that_it_is_given(tmp_path, capsys):
    source = write_sound(tmp_path / "speech.flac", speech(1.5))
    out = tmp_path / "fake.flac"
    assert commands.main([str(source), "--out", str(out), "--say", "Nothing here was ever said."]) == 0
    assert "neural_voice" in capsys.readouterr().out
    assert json.loads(record_of(out).read_text())["speech"]["words"].startswith("Nothing here")
    with pytest.raises(SystemExit):
        commands.main([str(tmp_path / "manifest.csv"), "--out", str(tmp_path), "--say", "Hello."])


def test_a_manifest_of_recordings_becomes_utterances_to_train_on(forge, tmp_path):
    write_sound(tmp_path / "a.flac", speech(1.0))
    (tmp_path / "manifest.csv").write_text("path,label,group,source_fold\na.flac,bonafide,reader,3\n")
    counts = forge_set(tmp_path / "manifest.csv", tmp_path / "set", forge, SetPlan(("neural_voice",), wash_share=0))
    assert counts == {"rows": 1, "items": 2, "left_out": 0}
    rows = {row["recipe"]: row for row in csv.DictReader((tmp_path / "set/items.csv").read_text("utf-8").splitlines())}
    made = rows["neural_voice"]
    assert (made["label"], made["audio"], made["group"], made["source_fold"]) == ("fake", "fake", "reader", "3")
    assert len(read_wave(tmp_path / "set" / made["path"])) == len(read_wave(tmp_path / "a.flac"))
    assert rows["untouched"]["label"] == "real"


def test_without_its_package_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(ConfigError, match="neural_voice needs the Python package 'hibari-tts'; install it"):
        recipe_of("neural_voice")


def test_the_voice_is_read_from_the_package_and_never_downloaded(monkeypatch, socket_disabled):
    from hibari import voices

    from clipwarden.models.training.forge import neural_voice

    def never(*_):
        pytest.fail("something is downloaded")

    monkeypatch.setattr(voices, "download", never)
    assert len(neural_voice._speaker.__wrapped__()("Hello.", seed=0))
    monkeypatch.setitem(voices.VOICES, "heart", voices.VOICES["emma"])
    monkeypatch.setenv("HIBARI_HOME", "/nowhere")
    with pytest.raises(FileNotFoundError):
        neural_voice._speaker.__wrapped__()
