"""Properties of a file that must not tell its label: what its container says, how sharp, large, loud and wide it is."""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import MediaProbe

CONTAINER: Final = ("width", "height", "fps", "seconds", "bit_rate", "has_audio")
CODECS: Final = ("video_codec", "audio_codec")
SEEN: Final = ("face_px", "sharpness", "level_dbfs", "bandwidth_hz")
_PICTURES: Final = 8
_HEARD_BELOW_PEAK_DB: Final = 60.0


def container(probe: MediaProbe) -> dict[str, float | str]:
    """What the probe says, as the metadata-only baseline takes it; bit rate in bit/s over the whole file."""
    return {
        "width": probe.width or math.nan,
        "height": probe.height or math.nan,
        "fps": probe.fps or math.nan,
        "seconds": probe.duration_s,
        "bit_rate": probe.size_bytes * 8 / probe.duration_s if probe.duration_s else math.nan,
        "has_audio": float(probe.has_audio),
        "video_codec": probe.video_codec or "",
        "audio_codec": probe.audio_codec or "",
    }


def seen(clip: Clip) -> dict[str, float]:
    """Face side in pixels of the file, sharpness, level and bandwidth; NaN where nothing was planned to be read."""
    views = [view for view in clip.views.values() if len(view)]
    faces = [view for key, view in clip.views.items() if key.startswith("face") and len(view)]
    waves = [(rate, sound.wave) for rate, sound in sorted(clip.sounds.items()) if len(sound.wave)]
    rate, wave = waves[0] if waves else (0, np.zeros(0, np.int16))
    return {
        "face_px": _side_px(faces[0]) if faces else math.nan,
        "sharpness": _sharpness((faces or views)[0]) if views else math.nan,
        "level_dbfs": _level_dbfs(wave) if waves else math.nan,
        "bandwidth_hz": _bandwidth_hz(wave, rate) if waves else math.nan,
    }


def _side_px(view: View) -> float:
    return float(np.median(np.minimum(view.boxes[:, 2] - view.boxes[:, 0], view.boxes[:, 3] - view.boxes[:, 1])))


def _sharpness(view: View) -> float:
    """Median over pictures of log10 of the variance of the grey picture's Laplacian."""
    chosen = view.images[np.linspace(0, len(view) - 1, min(len(view), _PICTURES)).astype(int)]
    grey = (cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in chosen)
    return float(np.median([math.log10(float(cv2.Laplacian(g, cv2.CV_64F).var()) + 1) for g in grey]))


def _level_dbfs(wave: NDArray[np.int16]) -> float:
    return 10 * math.log10(max(float(np.mean(np.square(wave.astype(np.float64) / 32768))), 1e-10))


def _bandwidth_hz(wave: NDArray[np.int16], rate: int) -> float:
    """Highest frequency whose power is within 60 dB of the strongest."""
    frequencies, power = welch(wave.astype(np.float64), fs=rate, nperseg=min(1024, len(wave)))
    heard = power > max(float(power.max()) * 10 ** (-_HEARD_BELOW_PEAK_DB / 10), 1e-12)
    return float(frequencies[heard].max()) if heard.any() else 0.0
