"""Channels that speech may have passed through: codecs, noise, lost bandwidth, a room. Applied to both labels alike."""

import io
from collections.abc import Callable
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

RATE_HZ: Final = 16_000
Wave = NDArray[np.float32]


def through_channel(wave: Wave, rng: np.random.Generator) -> Wave:
    """Send a 16 kHz mono wave in [-1, 1) through one random channel, at a random level; as int16 would keep it."""
    return through(CHANNELS[rng.integers(len(CHANNELS))], wave, rng)


def through(channel: str, wave: Wave, rng: np.random.Generator) -> Wave:
    """Send a 16 kHz mono wave through the channel of this name, one of CHANNELS or MORE_CHANNELS; else the same."""
    changed = _SIMULATIONS[channel](wave, rng) * rng.uniform(0.3, 1.0)
    return np.asarray(np.clip(np.round(changed * 32768), -32768, 32767) / 32768, np.float32)


def coded(wave: Wave, codec: str, container: str, bit_rate: int) -> Wave:
    """Encode and decode with a lossy codec of FFmpeg; returns 16 kHz mono again, with the codec's own delay."""
    stream = io.BytesIO()
    rate = 48_000 if codec == "libopus" else RATE_HZ
    with av.open(stream, "w", format=container) as output:
        track = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(track, av.AudioStream)
        track.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=rate, frame_size=track.frame_size or 0)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(track.encode(part))
        output.mux(track.encode(None))
    stream.seek(0)
    return _decoded(stream)


def _decoded(stream: io.BytesIO) -> Wave:
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)
    with av.open(stream, "r") as source:
        frames = [r for frame in source.decode(audio=0) for r in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([f.to_ndarray()[0] for f in frames]).astype(np.float32)


def _mp3(wave: Wave, rng: np.random.Generator) -> Wave:
    return coded(wave, "libmp3lame", "mp3", int(rng.choice([24_000, 32_000, 48_000, 64_000])))


def _aac(wave: Wave, rng: np.random.Generator) -> Wave:
    return coded(wave, "aac", "adts", int(rng.choice([24_000, 32_000, 48_000, 64_000])))


def _opus(wave: Wave, rng: np.random.Generator) -> Wave:
    return coded(wave, "libopus", "ogg", int(rng.choice([12_000, 16_000, 24_000, 32_000])))


def _noise(wave: Wave, rng: np.random.Generator) -> Wave:
    """Coloured noise, 8 to 30 dB below the speech."""
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(wave))
    gain = np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-rng.uniform(8, 30) / 20)
    return np.asarray(wave + gain * noise, np.float32)


def _narrow(wave: Wave, rng: np.random.Generator) -> Wave:
    low = butter(6, rng.uniform(2_800, 7_000), "lowpass", fs=RATE_HZ, output="sos")
    high = butter(2, rng.uniform(30, 300), "highpass", fs=RATE_HZ, output="sos")
    return np.asarray(sosfilt(high, sosfilt(low, wave)), np.float32)


def _room(wave: Wave, rng: np.random.Generator) -> Wave:
    """A direct path and an exponentially dying tail of noise."""
    samples = int(rng.uniform(0.1, 0.5) * RATE_HZ)
    tail = rng.standard_normal(samples) * np.exp(-6.9 * np.arange(samples) / samples)
    tail *= 10 ** (-rng.uniform(3, 15) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    wet = fftconvolve(wave, tail)[: len(wave)]
    return np.asarray(wet / max(1.0, float(np.abs(wet).max())), np.float32)


def _telephone(wave: Wave, _: np.random.Generator) -> Wave:
    """8 kHz, 8 bits by the µ-law of ITU-T G.711."""
    narrow = np.clip(resample_poly(wave, 1, 2), -1, 1)
    companded = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    coded = np.round(companded * 127) / 127
    expanded = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(_MU)) / _MU
    return np.asarray(resample_poly(expanded, 2, 1)[: len(wave)], np.float32)


def _clipped(wave: Wave, rng: np.random.Generator) -> Wave:
    """Recorded too loud: what is above a third to four fifths of the peak is cut off."""
    most = float(np.abs(wave).max()) * rng.uniform(0.33, 0.8)
    return np.asarray(np.clip(wave, -most, most), np.float32)


_MU: Final = 255
_SIMULATIONS: Final[dict[str, Callable[[Wave, np.random.Generator], Wave]]] = {
    "mp3": _mp3,
    "aac": _aac,
    "opus": _opus,
    "noise": _noise,
    "narrow": _narrow,
    "room": _room,
    "telephone": _telephone,
    "clipped": _clipped,
}
CHANNELS: Final = ("mp3", "aac", "opus", "noise", "narrow", "room")
"""What `through_channel` draws from; trained weights depend on their order."""
MORE_CHANNELS: Final = ("telephone", "clipped")
