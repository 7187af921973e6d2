"""The constant-Q transform of `librosa.cqt`, its kernels made once and each octave one matrix product.

Recursive sub-sampling (Schörkhuber et al., AES 2014): an octave is the one above it at half the sample rate, so twelve
kernels serve all eight. Resampler, kernels and the order of rounding are those of librosa 0.11, which loses more than
the rest of the work on building the kernels anew for each octave of each sound.
"""

from functools import cache
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 256  # samples; 16 ms a frame
LOWEST_HZ: Final = 20.0
BINS: Final = 96  # eight octaves; the top bin lies at 4.8 kHz
BINS_PER_OCTAVE: Final = 12
ROWS_AT_ONCE: Final = 64
DROPPED: Final = 0.01
"""Share of each kernel's spectrum, its faintest lines, that librosa sets to zero."""


def cqt(wave: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Constant-Q spectrum (96, 1 + samples // 256) of a mono wave at 16 kHz, scaled as librosa scales it.

    Frames are centred and the wave is surrounded by silence. A wave below 3.2 s is shorter than its lowest kernels.
    """
    kernels = _kernels()
    frames, hop = 1 + len(wave) // HOP, HOP
    spectrum = np.empty((BINS, frames), np.complex64)
    for low in range(BINS - BINS_PER_OCTAVE, -1, -BINS_PER_OCTAVE):
        padded = np.pad(wave, len(kernels) // 2)
        stretches = np.lib.stride_tricks.sliding_window_view(padded, len(kernels))[::hop][:frames]
        real, imaginary = np.split(_product(stretches, kernels).T, 2)
        spectrum[low : low + BINS_PER_OCTAVE] = real + 1j * imaginary
        wave, hop = _halved(wave), hop // 2
    return spectrum


def _product(rows: NDArray[np.float32], kernels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix product in double precision, in pieces that BLAS leaves to one thread: waking others costs more."""
    pieces = np.pad(rows, ((0, -len(rows) % ROWS_AT_ONCE), (0, 0))).astype(np.float64)
    products = pieces.reshape(-1, ROWS_AT_ONCE, rows.shape[1]) @ kernels
    return products.reshape(len(pieces), -1)[: len(rows)]


def _halved(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """At half the sample rate, with the same energy. Rounded as librosa rounds: the floor of the log shows the rest."""
    half = soxr.resample(wave, 2, 1, quality="soxr_hq")
    half = np.pad(half, (0, max(-(-len(wave) // 2) - len(half), 0)))[: -(-len(wave) // 2)]
    return np.asarray(half / np.sqrt(0.5), np.float32)


@cache
def _kernels() -> NDArray[np.float64]:
    """(128, 24): the twelve kernels of the top octave over time, real parts before imaginary ones."""
    tones_hz = LOWEST_HZ * 2.0 ** (np.arange(BINS - BINS_PER_OCTAVE, BINS) / BINS_PER_OCTAVE)
    step = 2.0 ** (2 / BINS_PER_OCTAVE)
    lengths = SAMPLE_RATE_HZ / tones_hz * (step + 1) / (step - 1)
    samples = 2 ** int(np.ceil(np.log2(lengths.max())))
    tones = np.stack([_tone(hz, length, samples) for hz, length in zip(tones_hz, lengths, strict=True)])
    spectra = np.fft.fft(tones * lengths[:, None] / samples)[:, : samples // 2 + 1]
    over_time = np.fft.fft(_without_faintest(spectra), samples) / np.sqrt(lengths)[:, None]
    return np.concatenate([over_time.real, over_time.imag]).T.copy()


def _tone(hz: float, length: float, samples: int) -> NDArray[np.complex128]:
    """A Hann-windowed tone whose magnitudes add up to one, in the middle of `samples` samples."""
    n = np.arange(-length // 2, length // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(n)) / len(n))
    tone = window / window.sum() * np.exp(2j * np.pi * hz / SAMPLE_RATE_HZ * n)
    before = (samples - len(n)) // 2
    return np.pad(tone, (before, samples - len(n) - before))


def _without_faintest(spectra: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The faintest lines of each row set to zero, as many as hold less than DROPPED of its magnitude."""
    magnitudes = np.abs(spectra)
    ascending = np.sort(magnitudes, axis=1)
    shares = np.cumsum(ascending, axis=1) / magnitudes.sum(axis=1, keepdims=True)
    faintest_kept = np.take_along_axis(ascending, np.argmax(shares >= DROPPED, axis=1)[:, None], axis=1)
    return np.where(magnitudes >= faintest_kept, spectra, 0)
