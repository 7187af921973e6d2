"""Forensic features of the video corpus in a cache: per clip, its crops as they are and laundered."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.laundry import laundered
from clipwarden.models.training.run_folder import cache_name
from clipwarden.models.training.video_data import VideoClip, prepared
from clipwarden.models.visual.forensic_features import forensic_features
from clipwarden.models.visual.forensic_mlp import NEED, ForensicMlp
from clipwarden.shared.clip import View

Features = NDArray[np.float64]

WASH_EVERY: Final = 3  # crops; the features cost a fifth of a second each


class ForensicCache:
    """One .npy per clip and version, shape (crops, 12): version 0 as is, version 1 laundered."""

    VERSIONS = 2

    def __init__(self, data: Path, folder: Path, seed: int, threads: int) -> None:
        self._data, self._folder, self._seed, self._threads = data, folder, seed, threads

    def fill(self, clips: Sequence[VideoClip]) -> Iterator[VideoClip]:
        """Compute what is missing, yielding each clip when it is done. A clip without faces gets (0, 12)."""
        missing = [c for c in clips if not self._file(c, 1).exists()]
        yield from (c for c in clips if c not in missing)
        for clip, content in prepared(self._data, missing, ForensicMlp.spec, self._threads):
            self._store(clip, content.view(NEED))
            yield clip

    def features(self, clip: VideoClip, version: int) -> Features:
        """Raw features (crops, 12)."""
        return np.asarray(np.load(self._file(clip, version)), np.float64)

    def _store(self, clip: VideoClip, view: View) -> None:
        digest = hashlib.sha256(f"{self._seed}/{clip.path}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        sides = (view.boxes[:, 2:] - view.boxes[:, :2]).max(axis=1) * (1 + NEED.margin)
        pairs = list(zip(view.images, sides, strict=True))
        washed = [laundered(image, float(side), rng) for image, side in pairs[::WASH_EVERY]]
        self._write(clip, 0, [forensic_features(image) for image in view.images])
        self._write(clip, 1, [forensic_features(image) for image in washed])

    def _write(self, clip: VideoClip, version: int, rows: list[Features]) -> None:
        part = self._file(clip, version).with_suffix(".part.npy")
        np.save(part, np.array(rows).reshape(len(rows), 12))
        part.replace(self._file(clip, version))

    def _file(self, clip: VideoClip, version: int) -> Path:
        return self._folder / f"{cache_name(clip.path)}.{version}.npy"
