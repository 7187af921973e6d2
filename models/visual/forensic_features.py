"""Twelve hand-made numbers of a picture: its spectrum, its noise, its sharpness and its block edges.

Follows the forensic classifier of the model specifications, with two departures: the twelfth feature, which that
page leaves at 0, is the mean step across the vertical edges of the 8 x 8 grid; and the noise ratio is clipped.
Several features depend on the picture's size: compare only pictures of one size.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, fftshift

FEATURES: Final = (
    "high_freq_ratio",
    "spectral_entropy",
    "magnitude_mean",
    "magnitude_std",
    "noise_variance",
    "noise_mean",
    "noise_var_r",
    "noise_var_g",
    "noise_var_b",
    "noise_var_ratio",
    "sharpness",
    "blocking_score",
)
HEAVY_TAILED: Final = FEATURES[2:]
RATIO_MAX: Final = 100.0
BLOCK_PX: Final = 8


def forensic_features(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The twelve features of an RGB picture (S, S, 3), in the order of FEATURES; all finite, none negative."""
    gray = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    sharpness = float(cv2.Laplacian(gray, cv2.CV_64F).var())
    return np.array([*_spectrum(gray), *_noise(picture), sharpness, _block_edges(gray)])


def compressed(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features (…, 12) as the network takes them before standardising: log(1 + x) of the heavy-tailed ones."""
    first = len(FEATURES) - len(HEAVY_TAILED)
    return np.concatenate([features[..., :first], np.log1p(features[..., first:])], axis=-1)


def _spectrum(gray: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Share outside the middle half of the shifted spectrum, entropy in nats, mean and spread of the magnitude."""
    magnitude = np.abs(fftshift(fft2(gray.astype(np.float64))))
    height, width = magnitude.shape
    total = max(float(magnitude.sum()), 1e-10)
    centre = magnitude[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    share = magnitude / total + 1e-10
    share /= share.sum()
    entropy = float(-(share * np.log(share)).sum())
    high = max(1 - float(centre.sum()) / total, 0.0)
    return high, entropy, float(magnitude.mean()), float(magnitude.std())


def _noise(picture: NDArray[np.uint8]) -> tuple[float, ...]:
    """Variance, mean size, variance per channel and their ratio, of what non-local means takes away.

    The denoiser reads channels as BGR but is fed RGB, as in the page that is followed, for equal numbers.
    """
    denoised = cv2.fastNlMeansDenoisingColored(picture, None, 10, 10, 7, 21)
    noise = picture.astype(np.float64) - denoised
    channels = noise.var(axis=(0, 1))
    ratio = min(max(float(channels.max() / (channels.min() + 1e-10)), 1.0), RATIO_MAX)
    return float(noise.var()), float(np.abs(noise).mean()), *map(float, channels), ratio


def _block_edges(gray: NDArray[np.uint8]) -> float:
    levels = gray.astype(np.float64)
    right = levels[:, BLOCK_PX::BLOCK_PX]
    left = levels[:, BLOCK_PX - 1 :: BLOCK_PX][:, : right.shape[1]]
    return float(np.abs(left - right).mean())
