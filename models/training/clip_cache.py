"""What detectors make of the corpus's clips, in a cache: of each clip as it is, and of its copies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.detector import DetectorSpec
from clipwarden.models.training.evaluation.recoding import recoded
from clipwarden.models.training.run_folder import AS_IT_IS, CODED, cache_name
from clipwarden.models.training.video_data import Copier, VideoClip, prepared
from clipwarden.models.visual.scores import faces_of
from clipwarden.shared.clip import View
from clipwarden.shared.contracts import MediaKind
from clipwarden.shared.errors import NotApplicable


def coded_again(path: Path, folder: Path) -> Path:
    """Write the clip as H.264 once more, at CRF 30."""
    return recoded(path, MediaKind.VIDEO, 1, folder)


VERSIONS: Final[Mapping[str, Copier | None]] = {AS_IT_IS: None, CODED: coded_again}
"""Each clip as it is, and as it arrives after a platform has compressed it."""


EMPTY: Final = 128
"""Bytes of a file without rows, which cannot be mapped into memory."""


class ClipCache:
    """One .npy per clip and version: what `made` returns for the large enough faces of a detector's view.

    A clip without such faces has an empty array.
    """

    def __init__(
        self, data: Path, folder: Path, spec: DetectorSpec, made: Callable[[View], NDArray[Any]], threads: int
    ) -> None:
        self._data, self._folder, self._spec, self._made, self._threads = data, folder, spec, made, threads

    def fill(self, clips: Sequence[VideoClip], versions: Sequence[str] = tuple(VERSIONS)) -> Iterator[VideoClip]:
        """Compute what is missing, yielding each clip once for each version, when that is done."""
        for version in versions:
            missing = [c for c in clips if not self._file(c, version).exists()]
            yield from (c for c in clips if c not in missing)
            for clip, content in prepared(self._data, missing, self._spec, self._threads, VERSIONS[version]):
                need = self._spec.needs.frames
                assert need is not None
                self._store(clip, version, content.view(need))
                yield clip

    def rows(self, clip: VideoClip, version: str = AS_IT_IS) -> NDArray[Any]:
        """What was made of the clip, read from the file as it is used."""
        file = self._file(clip, version)
        found: NDArray[Any] = np.load(file, mmap_mode="r" if file.stat().st_size > EMPTY else None)
        return found

    def _store(self, clip: VideoClip, version: str, view: View) -> None:
        try:
            rows = self._made(faces_of(view))
        except NotApplicable:
            rows = np.zeros((0,))
        part = self._file(clip, version).with_suffix(".part.npy")
        np.save(part, rows)
        part.replace(self._file(clip, version))

    def _file(self, clip: VideoClip, version: str) -> Path:
        return self._folder / f"{cache_name(clip.path)}.{version}.npy"
