"""Log-mel energies as librosa computes them: the mel network's input, and the picture of a sound for people.

Slaney's mel scale and area-normalised filters over a centred, Hann-windowed spectrum of 1024 samples.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.signal.windows import hann

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 256  # samples; 16 ms a column
FFT: Final = 1024
MELS: Final = 80
POWER_FLOOR: Final = 1e-10
RANGE_DB: Final = 80.0
PICTURE_COLUMNS: Final = 256
_LINEAR_UP_TO_HZ: Final = 1000.0
_HZ_PER_MEL: Final = 200 / 3
_OCTAVES_PER_MEL: Final = np.log(6.4) / 27


def log_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energies (80, 1 + samples // 256) of a mono wave at 16 kHz in dB, 0 the loudest, none below -80."""
    return _decibels(_mel_power(wave))


def spectrogram(wave: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A grey picture (80, at most 256) of minutes of mono sound at 16 kHz: time to the right, low tones below.

    White is the loudest, black 80 dB below it or silence. Of a longer sound a column shows the loudest of its stretch.
    """
    power = _mel_power(wave)
    columns = min(power.shape[1], PICTURE_COLUMNS)
    starts = np.arange(columns) * power.shape[1] // columns
    levels = _decibels(np.maximum.reduceat(power, starts, axis=1)) / RANGE_DB + 1
    heard = float(power.max()) > POWER_FLOOR
    return np.asarray(np.rint(255 * heard * levels[::-1]), np.uint8)


def _mel_power(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(wave, FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    spectrum = rfft(frames * hann(FFT, sym=False).astype(np.float32))
    return np.asarray(_filters() @ (spectrum.real**2 + spectrum.imag**2).T, np.float32)


def _decibels(power: NDArray[np.float32]) -> NDArray[np.float32]:
    levels = 10 * np.log10(np.maximum(power, POWER_FLOOR))
    return np.asarray(np.maximum(levels - levels.max(), -RANGE_DB), np.float32)


@cache
def _filters() -> NDArray[np.float32]:
    """(80, 513): triangles of equal area over the spectrum's lines, each from one neighbour's peak to the other's."""
    lines_hz = np.arange(FFT // 2 + 1) * SAMPLE_RATE_HZ / FFT
    peaks_hz = _hertz(np.linspace(0, _mels(SAMPLE_RATE_HZ / 2), MELS + 2))
    widths_hz = np.diff(peaks_hz)[:, None]
    rising = (lines_hz - peaks_hz[:-2, None]) / widths_hz[:-1]
    falling = (peaks_hz[2:, None] - lines_hz) / widths_hz[1:]
    areas = (peaks_hz[2:] - peaks_hz[:-2])[:, None] / 2
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) / areas, np.float32)


def _mels(hz: float) -> float:
    """Slaney's scale above the point up to which it is linear."""
    return float(_LINEAR_UP_TO_HZ / _HZ_PER_MEL + np.log(hz / _LINEAR_UP_TO_HZ) / _OCTAVES_PER_MEL)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    bend = _LINEAR_UP_TO_HZ / _HZ_PER_MEL
    above = _LINEAR_UP_TO_HZ * np.exp(_OCTAVES_PER_MEL * (mels - bend))
    return np.where(mels < bend, mels * _HZ_PER_MEL, above)
