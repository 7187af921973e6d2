"""Speech taken apart and put together again: vocoder copies, converted voices, splices."""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from clipwarden.models.training.forge.recipe import Need, Parameters, Recipe, Rng, Sources, Wave, uniform
from clipwarden.models.training.forge.sounds import Rows, frames_of, laid_in, levelled, overlapped, pitch

Listen = Callable[[Sources, Parameters, Rng], Wave]

HOP_S: Final = 0.01
_ENVELOPE_S: Final = 0.0028
_ROUNDS: Final = 6


def _fft_size(rate_hz: int) -> int:
    """About 64 ms, a power of two."""
    return int(2 ** round(np.log2(0.064 * rate_hz)))


def _draw_griffin_lim(rng: Rng) -> dict[str, float]:
    return {"mels": float(rng.choice([80, 100, 128])), "iterations": float(rng.choice([16, 32, 60]))}


def _griffin_lim(sources: Sources, parameters: Parameters, rng: Rng) -> Wave:
    """Mel spectrogram, its least-squares inverse, phases by Griffin and Lim (1984)."""
    import librosa

    wave, size = sources.clip.wave, _fft_size(sources.clip.rate_hz)
    magnitude = np.abs(librosa.stft(wave, n_fft=size, hop_length=size // 4))
    mels = librosa.filters.mel(sr=sources.clip.rate_hz, n_fft=size, n_mels=int(parameters["mels"]))
    back = np.maximum(np.linalg.pinv(mels) @ (mels @ magnitude), 0)
    copy = librosa.griffinlim(
        back, n_iter=int(parameters["iterations"]), hop_length=size // 4, random_state=int(rng.integers(2**31))
    )
    return levelled(copy, wave)


def _draw_phase_vocoder(rng: Rng) -> dict[str, float]:
    return uniform(rng, stretch=(1.15, 1.6))


def _phase_vocoder(sources: Sources, parameters: Parameters, _: Rng) -> Wave:
    """Slowed down and sped up again, each by a phase vocoder."""
    import librosa

    wave, size = sources.clip.wave, _fft_size(sources.clip.rate_hz)
    slow = librosa.phase_vocoder(librosa.stft(wave, n_fft=size), rate=1 / parameters["stretch"])
    slowed = librosa.istft(slow)
    back = librosa.phase_vocoder(librosa.stft(slowed, n_fft=size), rate=parameters["stretch"])
    return levelled(librosa.istft(back, length=len(wave)), wave)


def _draw_lpc(rng: Rng) -> dict[str, float]:
    return uniform(rng, breath=(0.03, 0.2))


def _lpc(sources: Sources, parameters: Parameters, rng: Rng) -> Wave:
    """Pulses or noise through all-pole filters, one every HOP_S (Atal and Hanauer 1971)."""
    wave, rate = sources.clip.wave, sources.clip.rate_hz
    hop, order = int(HOP_S * rate), 2 + rate // 1000
    size = 4 * hop
    source = frames_of(_excitation(wave, rate, hop, parameters["breath"], rng), size, hop)
    window, heard = np.hanning(size + 1)[:-1], frames_of(wave, size, hop)
    rows = np.zeros((min(len(source), len(heard)), size))
    for k in range(len(rows)):
        taps = _predictor(heard[k] * window, order)
        voiced = lfilter([1.0], taps, source[k])
        gain = np.linalg.norm(heard[k] * window) / max(float(np.linalg.norm(voiced * window)), 1e-9)
        rows[k] = gain * voiced * window
    return levelled(overlapped(rows, hop, len(wave)), wave)


def _predictor(row: Rows, order: int) -> Rows:
    """1 and the negated coefficients of the linear predictor of a windowed row, by its autocorrelation."""
    echo = np.correlate(row, row, "full")[len(row) - 1 : len(row) + order]
    if echo[0] < 1e-9:
        return np.array([1.0])
    echo[0] *= 1.0001  # white noise 40 dB down keeps the filter stable
    return np.concatenate([[1.0], -solve_toeplitz(echo[:-1], echo[1:])])


def _excitation(wave: Wave, rate_hz: int, hop: int, breath: float, rng: Rng) -> Rows:
    """A pulse per period where the wave is voiced, noise elsewhere and a little of it everywhere; (N,)."""
    hertz, voiced = pitch(wave, rate_hz, hop)
    at = np.minimum(np.arange(len(wave)) // hop, len(hertz) - 1)
    phase = np.cumsum(hertz[at] / rate_hz)
    pulses = np.diff(np.floor(phase), prepend=0.0) * np.sqrt(rate_hz / hertz[at])
    noise = rng.standard_normal(len(wave))
    return np.where(voiced[at], pulses + breath * noise, noise)


def _draw_world(rng: Rng) -> dict[str, float]:
    return uniform(rng, flatten=(0.0, 0.3))


def _world(sources: Sources, parameters: Parameters, _: Rng) -> Wave:
    """Analysis and synthesis by WORLD (Morise 2016), the pitch contour flattened towards its mean."""
    import pyworld

    wave, rate = sources.clip.wave.astype(np.float64), sources.clip.rate_hz
    hertz, times = pyworld.harvest(wave, rate)
    envelope = pyworld.cheaptrick(wave, hertz, times, rate)
    breath = pyworld.d4c(wave, hertz, times, rate)
    mean = float(hertz[hertz > 0].mean()) if np.any(hertz > 0) else 0.0
    flat = np.where(hertz > 0, hertz + parameters["flatten"] * (mean - hertz), 0.0)
    return levelled(pyworld.synthesize(flat, envelope, breath, rate), sources.clip.wave)


def _draw_conversion(rng: Rng) -> dict[str, float]:
    sign = float(rng.choice([-1, 1]))
    drawn = uniform(rng, semitones=(2.0, 5.0), formants=(0.08, 0.2))
    return {"semitones": sign * drawn["semitones"], "formants": round(1 + sign * drawn["formants"], 4)}


def _conversion(sources: Sources, parameters: Parameters, _: Rng) -> Wave:
    """Another pitch by phase vocoder and resampling, then the spectral envelope moved to where it shall be."""
    import librosa

    wave, rate = sources.clip.wave, sources.clip.rate_hz
    moved = librosa.effects.pitch_shift(wave, sr=rate, n_steps=parameters["semitones"])
    # The shift has moved the formants along with the pitch.
    factor = parameters["formants"] / 2 ** (parameters["semitones"] / 12)
    return levelled(_formants_moved(np.asarray(moved, np.float32), rate, factor), wave)


def _formants_moved(wave: Wave, rate_hz: int, factor: float) -> Wave:
    """Each short-time spectrum with its envelope stretched along the frequencies by `factor`."""
    import librosa

    size = _fft_size(rate_hz) // 2
    spectrum = librosa.stft(wave, n_fft=size, hop_length=size // 4)
    envelope = _envelope(np.log(np.abs(spectrum) + 1e-6), int(_ENVELOPE_S * rate_hz))
    bins = np.arange(len(envelope))
    source = np.minimum(bins / factor, len(bins) - 1)
    low = source.astype(np.int64)
    share = (source - low)[:, None]
    wanted = envelope[low] * (1 - share) + envelope[np.minimum(low + 1, len(bins) - 1)] * share
    return np.asarray(librosa.istft(spectrum * np.exp(np.clip(wanted - envelope, -6, 6)), length=len(wave)), np.float32)


def _envelope(log_spectrum: Rows, keep: int) -> Rows:
    """The first `keep` cepstral coefficients of each column, fitted to its peaks (Röbel and Rodet 2005)."""
    peaks, smooth = log_spectrum, log_spectrum
    for _ in range(_ROUNDS):
        cepstrum = np.fft.irfft(peaks, axis=0)
        cepstrum[keep : len(cepstrum) - keep + 1] = 0
        smooth = np.fft.rfft(cepstrum, axis=0).real
        peaks = np.maximum(log_spectrum, smooth)
    return np.asarray(smooth, np.float64)


def _draw_splice(rng: Rng) -> dict[str, float]:
    return uniform(rng, length_s=(0.25, 0.7)) | {"pieces": float(rng.integers(2, 6))}


def _splice(sources: Sources, parameters: Parameters, rng: Rng) -> Wave:
    """Pieces of the sound put over other places of it."""
    wave, rate = sources.clip.wave, sources.clip.rate_hz
    spliced, length = wave.copy(), max(min(int(parameters["length_s"] * rate), len(wave) // 3), 1)
    for _ in range(int(parameters["pieces"])):
        source, place = _two_places(len(wave), length, rng)
        laid_in(spliced, wave[source : source + length], place, rate)
    return spliced


def _two_places(samples: int, length: int, rng: Rng) -> tuple[int, int]:
    """Starts of two stretches that do not overlap, if that can be."""
    source = int(rng.integers(max(samples - length, 1)))
    free = [k for k in rng.integers(max(samples - length, 1), size=16) if abs(int(k) - source) >= length]
    return source, int(free[0]) if free else (source + length) % max(samples - length, 1)


def _voice(name: str, summary: str, draw: Callable[[Rng], dict[str, float]], listen: Listen) -> Recipe:
    return Recipe(
        name=name,
        version=1,
        summary=summary,
        fakes=frozenset({"audio"}),
        needs=frozenset({Need.SOUND}),
        draw=draw,
        listen=listen,
        package="pyworld" if name == "world" else None,
    )


VOICES: Final = (
    _voice("griffin_lim", "the voice from its mel spectrogram, phases guessed", _draw_griffin_lim, _griffin_lim),
    _voice("phase_vocoder", "the voice slowed down and sped up again", _draw_phase_vocoder, _phase_vocoder),
    _voice("lpc", "the voice as pulses and noise through prediction filters", _draw_lpc, _lpc),
    _voice("world", "the voice through the WORLD vocoder, its melody flattened", _draw_world, _world),
    _voice("conversion", "the voice with another pitch and other formants", _draw_conversion, _conversion),
)
SPLICE: Final = Recipe(
    name="splice",
    version=1,
    summary="pieces of the sound put over other places of it",
    fakes=frozenset({"audio", "sync"}),
    needs=frozenset({Need.SOUND}),
    draw=_draw_splice,
    listen=_splice,
)
