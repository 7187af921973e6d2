"""Numbers that describe a stretch of speech: how the phases, envelopes and bands of neighbouring moments agree.

A synthesiser makes plausible spectra; less often does it make the order between them that a voice and a room leave.
None of the numbers depends on the level of the sound.
"""

from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

RATE_HZ: Final = 16_000
SHORTEST: Final = RATE_HZ  # samples; a shorter stretch is repeated to this length
COUNT: Final = 3_444
BANDS: Final = 16
LEAST_FRAMES: Final = 4

_LEVEL: Final = 0.05  # root mean square that every stretch is brought to
_SIZES: Final = ((256, 64), (512, 160), (1024, 256))  # samples of a frame, and between frames
_FILTERS, _CEPSTRA = 40, 24
_SLOW_HZ: Final = (0.5, 2, 4, 8, 12, 16, 24, 32, 50)
_FINE_LINES: Final = (1, 4, 8, 16, 32, 48, 64, 96, 128, 160, 200, 256)  # of 512 milliseconds: 2 to 500 Hz
_NEAR: Final = 12  # milliseconds to either side that a fine envelope is compared with
_TINY: Final = 1e-9

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]
Mask = NDArray[np.bool_]


def describe(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 3,444 numbers of a mono wave (N,) at 16 kHz, of one to about eight seconds; always finite."""
    wave = _levelled(np.resize(wave, max(len(wave), SHORTEST)))
    blocks = [*_spectral(wave), *(block for size in _SIZES for block in _phases(wave, *size)), *_fine(wave)]
    numbers = np.concatenate([block.ravel() for block in [*blocks, _bicoherence(wave)]])
    return np.asarray(np.nan_to_num(numbers, posinf=0, neginf=0), np.float32)


def _levelled(wave: NDArray[np.float32]) -> Real:
    loudness = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    return np.asarray(wave * (_LEVEL / max(float(loudness), _TINY)), np.float32)


def _frames(wave: Real, length: int, hop: int) -> Real:
    stretches = np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]
    return np.asarray(stretches * np.hanning(length).astype(np.float32))


def _spectra(wave: Real, length: int, hop: int, points: int = 0) -> Complex:
    """(T, points / 2 + 1), each frame under a Hann window."""
    return np.asarray(scipy.fft.rfft(_frames(wave, length, hop), points or length, axis=1))


def _loud(energy: Real, below: float) -> Mask:
    """Frames at most `below` under the loudest twentieth; energy (T,) is a logarithm."""
    return np.asarray(energy > np.percentile(energy, 95) - below)


def _where(rows: Real, loud: Mask) -> Real:
    """The loud ones of rows that end where the frames end; all, if next to none are loud."""
    chosen = rows[loud[len(loud) - len(rows) :]]
    return chosen if len(chosen) >= LEAST_FRAMES else rows


def _banded(values: NDArray, bands: int = BANDS) -> NDArray:  # type: ignore[type-arg]
    """Means over equal bands of axis 1; what does not fill a band is left out."""
    width = values.shape[1] // bands
    return np.asarray(values[:, : bands * width].reshape(len(values), bands, width).mean(axis=2))


def _unit(values: Complex) -> Complex:
    return np.asarray(values / (np.abs(values) + np.float32(1e-7)))


def _shape(rows: Real) -> Real:
    """Per column mean, spread, skewness, excess, and spread and size of the steps; (6, columns)."""
    centred, steps = rows - rows.mean(axis=0), np.diff(rows, axis=0)
    spread = centred.std(axis=0)
    scaled = centred / (spread + 1e-6)
    third, fourth = (scaled**3).mean(axis=0), (scaled**4).mean(axis=0) - 3
    return np.stack([rows.mean(axis=0), spread, third, fourth, steps.std(axis=0), np.abs(steps).mean(axis=0)])


def _range(rows: Real) -> Real:
    """Per column mean, spread, 10th, 50th and 90th percentile, and size of the steps; (6, columns)."""
    quantiles = np.percentile(rows, (10, 50, 90), axis=0).astype(np.float32)
    return np.stack([rows.mean(axis=0), rows.std(axis=0), *quantiles, np.abs(np.diff(rows, axis=0)).mean(axis=0)])


def _spectral(wave: Real) -> list[Real]:
    """Cepstra, flatness and roughness of bands, slow modulation, and the order of phases, on one spectrogram."""
    length, hop = _SIZES[1]
    points = 2 * length
    spectra = _spectra(wave, length, hop, points)
    power = np.square(np.abs(spectra)) + np.float32(1e-12)
    loud = _loud(10 * np.log10(power.sum(axis=1)), 35)
    filtered = np.log(power @ _filters().T + np.float32(1e-10))
    cepstra = scipy.fft.dct(filtered, axis=1, norm="ortho")[:, :_CEPSTRA]
    lines = np.log(power[:, : points // 2])
    flatness = _banded(lines) - np.log(_banded(power))
    rough = np.stack([band.std(axis=1) for band in np.split(lines, BANDS, axis=1)], axis=1)
    per_frame = [cepstra, flatness, rough[1:], *_order(spectra, power, hop / points)]
    return [*(_shape(_where(rows, loud)) for rows in per_frame), _slow(filtered)]


@cache
def _filters() -> Real:
    """Triangles (40, 513), equally wide."""
    corners, lines = np.linspace(0, 512, _FILTERS + 2), np.arange(513)
    width = corners[1]
    rising, falling = (lines - corners[:-2, None]) / width, (corners[2:, None] - lines) / width
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None), np.float32)


def _order(spectra: Complex, power: Real, advance: float) -> list[Real]:
    """Per frame and band: group delay's deviation, agreement of the phase's advance, steadiness of that advance."""
    delay = np.angle(spectra[:, 1:] * np.conj(spectra[:, :-1]))
    deviation = np.log(_banded(np.abs(delay - np.median(delay, axis=1, keepdims=True))) + np.float32(1e-3))
    units = _unit(spectra)
    steps = units[1:] * np.conj(units[:-1]) * _turns(spectra.shape[1], advance)
    agreement = np.abs(_banded(power[1:] * steps)) / _banded(power[1:])
    return [deviation, agreement, _banded((units[2:] * np.conj(units[1:-1]) ** 2 * units[:-2]).real)]


def _turns(lines: int, advance: float) -> Complex:
    """What the phase of each line's own frequency gains from frame to frame, taken back."""
    return np.asarray(np.exp(-2j * np.pi * advance * np.arange(lines)), np.complex64)


def _slow(filtered: Real) -> Real:
    """Modulation of twenty bands by 0.5 to 50 Hz, in logarithms relative to each band's mean; (8, 20)."""
    envelopes = filtered.reshape(len(filtered), _FILTERS // 2, 2).mean(axis=2) / 2
    envelopes = (envelopes - envelopes.mean(axis=0)) * np.hanning(len(envelopes))[:, None]
    lines = np.square(np.abs(scipy.fft.rfft(envelopes, 1024, axis=0)))
    hertz = np.fft.rfftfreq(1024, 0.01)
    bands = [lines[(hertz >= a) & (hertz < b)].mean(axis=0) for a, b in pairwise(_SLOW_HZ)]
    levels = np.log(np.stack(bands) + 1e-6)
    return np.asarray(levels - levels.mean(axis=0))


def _phases(wave: Real, length: int, hop: int) -> list[Real]:
    """How phases agree within bands, from frame to frame, from line to line, and both, on one spectrogram."""
    spectra = _spectra(wave, length, hop)
    size = np.abs(spectra) + np.float32(1e-7)
    loud, units = _loud(np.log(np.square(size).sum(axis=1)), 7.5), spectra / size
    steps = units[1:] * np.conj(units[:-1]) * _turns(spectra.shape[1], hop / length)
    along = np.conj(spectra[:, :-1]) * spectra[:, 1:]
    delays = _banded(along)
    across = units[:, 2:] * np.conj(units[:, 1:-1]) ** 2 * units[:, :-2]
    again = units[2:] * np.conj(units[1:-1]) ** 2 * units[:-2]
    pairs, in_time = size[1:] * size[:-1], np.cbrt(size[2:] * size[1:-1] * size[:-2])
    in_lines = np.cbrt(size[:, 2:] * size[:, 1:-1] * size[:, :-2])
    rows = [
        np.abs(_banded(pairs * steps)) / (_banded(pairs) + _TINY),
        _banded(in_time * again.real) / (_banded(in_time) + _TINY),
        np.abs(delays) / (_banded(np.abs(along)) + _TINY),
        _banded(in_lines * across.real) / (_banded(in_lines) + _TINY),
        _banded((steps[:, 1:] * np.conj(steps[:, :-1])).real),
    ]
    directions = _unit(delays[loud] if loud.sum() >= LEAST_FRAMES else delays)
    together = np.abs((directions[:, 1:] * np.conj(directions[:, :-1])).mean(axis=0))
    return [*(_range(_where(row, loud)) for row in rows), together]


def _fine(wave: Real) -> list[Real]:
    """Envelopes of sixteen bands by the millisecond: their shape, how bands agree at once and later, modulation."""
    levels = np.log(_banded(np.abs(_spectra(wave, 64, 16, 128))[:, :64]) + np.float32(1e-4))
    loud = _loud(levels.mean(axis=1), 3.5)[_NEAR : len(levels) - _NEAR]
    sums = np.cumsum(np.vstack([np.zeros(BANDS), levels]), axis=0, dtype=np.float64)
    around = (sums[2 * _NEAR :] - sums[: -2 * _NEAR])[: len(loud)] / (2 * _NEAR)
    apart = _where((levels[_NEAR : len(levels) - _NEAR] - around).astype(np.float32), loud)
    spread = apart.std(axis=0)
    scaled = apart / (spread + 1e-6)
    later = [(apart[lag:] * apart[:-lag]).mean(axis=0) / (spread**2 + 1e-6) for lag in (8, 2, 4)]
    shape = np.stack([spread, (scaled**3).mean(axis=0), (scaled**4).mean(axis=0), *later])
    centred = scaled - scaled.mean(axis=0)
    at_once = (centred.T @ centred / len(centred))[np.triu_indices(BANDS, 1)]
    lagged = [scaled[lag:].T @ scaled[:-lag] / (len(scaled) - lag) for lag in (1, 2, 4)]
    neighbours = np.concatenate([np.diag(one, side) for side in (1, -1) for one in lagged])
    return [shape, at_once, neighbours, _quick(levels)]


def _quick(levels: Real) -> Real:
    """Modulation of sixteen bands by 2 to 500 Hz, in logarithms; (16, 11)."""
    centred = np.ascontiguousarray((levels - levels.mean(axis=0)).T)
    lines = np.stack([np.square(np.abs(_spectra(band, 512, 256))).mean(axis=0) for band in centred])
    edges = pairwise(_FINE_LINES)
    return np.stack([np.log(lines[:, a:b].mean(axis=1) + 1e-6) for a, b in edges], axis=1)


def _bicoherence(wave: Real) -> Real:
    """How the phases of two frequencies settle that of their sum, for 231 pairs: size, real and imaginary part."""
    spectra = _spectra(wave, 256, 96)
    energy = np.log(np.square(np.abs(spectra)).sum(axis=1) + _TINY)
    chosen = spectra[_loud(energy, 6)]
    chosen = chosen / (np.sqrt(np.square(np.abs(chosen)).mean(axis=1, keepdims=True)) + _TINY)
    grid = np.arange(2, 64, 3)
    first, second = (grid[of] for of in np.tril_indices(len(grid)))
    pairs, sums = chosen[:, first] * chosen[:, second], np.conj(chosen[:, first + second])
    power = np.square(np.abs(pairs)).mean(axis=0) * np.square(np.abs(sums)).mean(axis=0)
    found = (pairs * sums).mean(axis=0) / (np.sqrt(power) + _TINY)
    return np.stack([np.abs(found), found.real, found.imag])
