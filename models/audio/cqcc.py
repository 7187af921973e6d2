"""Constant-Q cepstral coefficients (Todisco et al., Odyssey 2016) as the 5-way pipeline computes them.

Departs from the paper by leaving the spectrum on its geometric frequency scale, without uniform resampling.
"""

from typing import Final

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 256  # samples; 16 ms a frame
LOWEST_HZ: Final = 20.0
BINS: Final = 96
BINS_PER_OCTAVE: Final = 12  # 8 octaves: the top bin lies at 4.8 kHz
CEPSTRA: Final = 30
ROWS: Final = 3 * CEPSTRA  # cepstra, their slope, their curvature
POWER_FLOOR: Final = 1e-12
SHORTEST: Final = 51_200  # samples; below, the lowest bins are longer than the sound


def cqcc(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cepstra, slopes and curvatures of a mono wave in [-1, 1) at 16 kHz, shape (90, 1 + samples // 256).

    A wave shorter than 3.2 s is repeated until it is that long. The wave must not be empty.
    """
    wave = np.resize(wave, max(len(wave), SHORTEST))
    spectrum = librosa.cqt(
        wave, sr=SAMPLE_RATE_HZ, hop_length=HOP, fmin=LOWEST_HZ, n_bins=BINS, bins_per_octave=BINS_PER_OCTAVE
    )
    log_power = np.log(np.abs(spectrum).astype(np.float64) ** 2 + POWER_FLOOR)
    cepstra = dct(log_power, type=2, axis=0, norm="ortho")[:CEPSTRA]
    slopes = librosa.feature.delta(cepstra, order=1)
    curvatures = librosa.feature.delta(cepstra, order=2)
    return np.concatenate([cepstra, slopes, curvatures]).astype(np.float32)
