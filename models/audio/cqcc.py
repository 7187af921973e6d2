"""Constant-Q cepstral coefficients (Todisco et al., Odyssey 2016) as the 5-way pipeline computes them.

Departs from the paper by leaving the spectrum on its geometric frequency scale, without uniform resampling.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.signal import savgol_filter

from clipwarden.models.audio.cqt import cqt

CEPSTRA: Final = 30
ROWS: Final = 3 * CEPSTRA  # cepstra, their slope, their curvature
SLOPE_FRAMES: Final = 9
POWER_FLOOR: Final = 1e-12
SHORTEST: Final = 51_200  # samples; below, the lowest bins are longer than the sound


def cqcc(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cepstra, slopes and curvatures of a mono wave in [-1, 1) at 16 kHz, shape (90, 1 + samples // 256).

    A wave shorter than 3.2 s is repeated until it is that long. The wave must not be empty.
    """
    spectrum = cqt(np.resize(wave, max(len(wave), SHORTEST)))
    log_power = np.log(np.abs(spectrum).astype(np.float64) ** 2 + POWER_FLOOR)
    cepstra = dct(log_power, type=2, axis=0, norm="ortho")[:CEPSTRA]
    slopes = savgol_filter(cepstra, SLOPE_FRAMES, polyorder=1, deriv=1)
    curvatures = savgol_filter(cepstra, SLOPE_FRAMES, polyorder=2, deriv=2)
    return np.concatenate([cepstra, slopes, curvatures]).astype(np.float32)
