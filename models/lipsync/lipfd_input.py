"""LipFD's input as its published program makes it, in memory: no sound file, no picture file.

Sound becomes a picture in false colours, put above five frames in a row; for profile `original` the picture enters as
blue, green, red from 0 to 255, not normalised, and all five "frames" that the ResNet sees are the first one, moved by 0
to 4 pixels. The public weights were trained and validated with these, so whoever uses them must do the same.
"""

from base64 import b64decode
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clipwarden.models.lipsync.lipfd_windows import FRAMES

SIDE_PX: Final = 500
PICTURE: Final = (2 * SIDE_PX, FRAMES * SIDE_PX, 3)
HOP: Final = 512
FFT: Final = 2048
MELS: Final = 128
FACE: Final = slice(28, 196)
LIPS: Final = slice(61, 163)
CROP_PX: Final = 224
JOINED_PX: Final = 1120

Picture = NDArray[np.uint8]


def mel_picture(wave: NDArray[np.float32], rate_hz: int) -> Picture:
    """Energies of a track in false colours, (128, 1 + samples // 512, 3) RGB, low tones above.

    librosa's mel spectrogram in dB over its smallest value, at most 80 dB deep, from viridis's first colour to its
    last, each lowered where the original's way through a file of floats loses a level.
    """
    import librosa

    power = librosa.feature.melspectrogram(y=wave, sr=rate_hz, n_fft=FFT, hop_length=HOP, n_mels=MELS)
    levels = librosa.power_to_db(power, ref=np.min).astype(np.float32)
    low, high = levels.min(), levels.max()
    shares = (levels - low) / (high - low) if high > low else np.zeros_like(levels)
    steps = np.minimum((shares * np.float32(256)).astype(np.int64), 255)
    picture: Picture = _colours()[steps]
    return picture


def columns(start: int, frames: int, width: int) -> tuple[int, int]:
    """Which columns of a picture of sound `width` wide belong to the window that starts with a frame, of `frames`."""
    per_frame = width / frames
    return round(start * per_frame), round((start + FRAMES) * per_frame)


def joined(sound: Picture, frames: Picture) -> Picture:
    """A window as one RGB picture (1000, 2500, 3): its sound (128, W, 3) above its frames (5, 500, 500, 3)."""
    above = cv2.resize(sound, (FRAMES * SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    return np.concatenate([above, np.concatenate(list(frames), axis=1)]).astype(np.uint8, copy=False)


def seen(pictures: Picture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """RGB pictures (N, 1000, 2500, 3) as the network takes them: (N, 3, 1120, 1120), and crops (N, 5, 3, 3, 224, 224).

    Bilinear and without smoothing, as torchvision's Resize did on tensors when the weights were made.
    """
    levels = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).flip(-1).permute(0, 3, 1, 2).float()
    frames = levels[:, :, SIDE_PX:]
    wholes = torch.stack([_scaled(frames[..., i : i + SIDE_PX], CROP_PX) for i in range(FRAMES)], dim=1)
    flat = wholes.flatten(0, 1)
    parts = [wholes, *(_scaled(flat[..., part, part], CROP_PX).view_as(wholes) for part in (FACE, LIPS))]
    return _scaled(levels, JOINED_PX).to(dtype), torch.stack(parts, dim=2).to(dtype)


def _scaled(levels: Tensor, side_px: int) -> Tensor:
    return F.interpolate(levels, size=(side_px, side_px), mode="bilinear", align_corners=False, antialias=False)


def _colours() -> Picture:
    """Viridis (256, 3) as it comes back from a PNG file that is read as float32 in [0, 1] and cut to bytes."""
    levels = np.frombuffer(b64decode(_VIRIDIS), np.uint8).reshape(256, 3)
    return (levels.astype(np.float32) / np.float32(255) * np.float32(255)).astype(np.uint8)


_VIRIDIS: Final = (
    "RAFURAJVRANXRQVYRQZaRQhbRglcRgteRgxfRg5hRw9iRxFjRxJlRxRmRxVnRxZpRxhqSBlrSBpsSBxuSB1vSB5wSCBxSCFySCJzSCN0RyV1RyZ2"
    "Ryd3Ryh4Ryp5Ryt6Ryx7Ri18Ri98RjB9RjF+RTJ/RTR/RTWARTaBRDeBRDmCQzqDQzuDQzyEQj2EQj6FQkCFQUGGQUKGQEOHQESHP0WHP0eIPkiI"
    "PkmJPUqJPUuJPUyJPE2KPE6KO1CKO1GKOlKLOlOLOVSLOVWLOFaLOFeMN1iMN1mMNlqMNluMNVyMNV2MNF6NNF+NM2CNM2GNMmKNMmONMWSNMWWN"
    "MWaNMGeNMGiNL2mNL2qNLmuOLmyOLm2OLW6OLW+OLHCOLHGOLHKOK3OOK3SOKnWOKnaOKneOKXiOKXmOKHqOKHqOKHuOJ3yOJ32OJ36OJn+OJoCO"
    "JoGOJYKOJYONJISNJIWNJIaNI4eNI4iNI4mNIomNIoqNIouNIYyNIY2MIY6MII+MIJCMIJGMH5KMH5OLH5SLH5WLH5aLHpeKHpiKHpmKHpmKHpqJ"
    "HpuJHpyJHp2IHp6IHp+IHqCHH6GHH6KGH6OGIKSFIKWFIaaFIaeEIqeEI6iDI6mCJKqCJauBJqyBJ62AKK5/Ka9/KrB+K7F9LLF9LrJ8L7N7MLR6"
    "MrV6M7Z5Nbd4Nrh3OLl2Obl2O7p1Pbt0PrxzQL1yQr5xRL5wRb9vR8BuScFtS8JsTcJrT8NpUcRoU8VnVcZmV8ZlWcdkW8hiXslhYMlgYspfZMtd"
    "Z8xcacxba81Zbc5YcM5Wcs9VdNBUd9BSedFRfNJPftJOgdNMg9NLhtRJiNVHi9VGjdZEkNZDktdBldc/l9g+mtg8ndk6n9k4oto3pdo1p9szqtsy"
    "rdwwr9wust0std0rt90put4nvd4mv98kwt8ixd8hx+AfyuAezeAdz+Ec0uEb1OEa1+IZ2uIY3OIY3+MY4eMY5OMY5+QZ6eQZ7OQa7uUb8eUc8+Ue"
    "9uYf+OYh+uYi/eck"
)
"""The colours of matplotlib's map of that name (CC0), three bytes each; OpenCV's differ by one level in many places."""
