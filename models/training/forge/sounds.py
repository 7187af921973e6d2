"""Arithmetic of waves that recipes share: level, resampling, joints, envelopes, pitch."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.forge.recipe import Wave

JOINT_S: Final = 0.006
PITCH_HZ: Final = (70.0, 400.0)
VOICED: Final = 0.5
Rows = NDArray[np.float64]


def levelled(wave: NDArray[Any], like: Wave) -> Wave:
    """float32 of the length and root mean square of another; peaks over full scale pull the whole down."""
    fitted = np.zeros(len(like))
    fitted[: len(wave)] = wave[: len(like)]
    rms, goal = (float(np.sqrt(np.mean(np.square(w, dtype=np.float64)))) for w in (fitted, like))
    scaled = fitted * (goal / max(rms, 1e-9))
    return np.asarray(scaled / max(1.0, float(np.abs(scaled).max()) / 0.99), np.float32)


def resampled(wave: Wave, rate_hz: int, new_rate_hz: int) -> Wave:
    """The wave at another rate."""
    if rate_hz == new_rate_hz:
        return wave
    import soxr

    return np.asarray(soxr.resample(wave, rate_hz, new_rate_hz), np.float32)


def laid_in(wave: Wave, piece: Wave, start: int, rate_hz: int) -> None:
    """Put a piece into a wave in place, its ends faded into what was there."""
    end = min(start + len(piece), len(wave))
    piece = piece[: end - start]
    joint = min(int(JOINT_S * rate_hz), len(piece) // 2)
    fade = np.ones(len(piece), np.float32)
    if joint:
        ramp = np.linspace(0, 1, joint, endpoint=False, dtype=np.float32)
        fade[:joint], fade[len(fade) - joint :] = ramp, ramp[::-1]
    wave[start:end] = wave[start:end] * (1 - fade) + piece * fade


def frames_of(wave: NDArray[Any], size: int, hop: int) -> Rows:
    """Overlapping stretches (N, size) of the wave with half a stretch of zeros before and after it."""
    padded = np.pad(wave.astype(np.float64), (size // 2, size))
    rows: Rows = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(wave) + hop : hop]
    return rows


def overlapped(rows: Rows, hop: int, length: int) -> Rows:
    """Undo `frames_of` for rows that a Hann window has weighted once."""
    size = rows.shape[1]
    total, weight = np.zeros((2, len(rows) * hop + size))
    window = np.hanning(size + 1)[:-1]
    for k, row in enumerate(rows):
        total[k * hop : k * hop + size] += row
        weight[k * hop : k * hop + size] += window
    even = total / np.maximum(weight, 1e-3)
    return np.asarray(even[size // 2 : size // 2 + length], np.float64)


def pitch(wave: Wave, rate_hz: int, hop: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Fundamental in Hz and whether there is one, every `hop` samples: the highest peak of the autocorrelation."""
    size = int(0.045 * rate_hz)
    rows = frames_of(wave, size, hop) * np.hanning(size)
    spectrum = np.abs(np.fft.rfft(rows, 2 * size)) ** 2
    echo = np.fft.irfft(spectrum)[:, :size]
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)[:size]
    echo = echo / np.maximum(echo[:, :1], 1e-12) / np.maximum(window / window[0], 0.05)
    low, high = int(rate_hz / PITCH_HZ[1]), int(rate_hz / PITCH_HZ[0])
    lag = low + np.argmax(echo[:, low:high], axis=1)
    loud = np.sqrt(np.mean(rows**2, axis=1)) > 0.05 * np.sqrt(np.mean(rows**2) + 1e-12)
    return rate_hz / lag.astype(np.float64), (echo[np.arange(len(lag)), lag] > VOICED) & loud
