"""Puts a file before the fence as ingest does, and checks that nothing came of it but an outcome."""

import time
from pathlib import Path
from typing import Self

from clipwarden.models.faces import FaceDetector
from clipwarden.models.run import read_clip
from clipwarden.shared.codes import SENTENCES
from clipwarden.shared.contracts import (
    AudioNeed,
    Branch,
    DetectorState,
    FrameNeed,
    Manifest,
    ManifestDetector,
    MediaKind,
    Needs,
)
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests.hostile_kit import ANALYSED, Kit

LIMITS = MediaLimits(cpu_s=3, wall_s=30, max_frames=50_000)
GRACE_S = 10
DIGEST = f"sha256:{'0' * 64}"
PICTURES = Needs(frames=FrameNeed(view="frame", count=6, size_px=64))
MOUTHS = Needs(
    frames=FrameNeed(view="mouth", count=2, consecutive=2, size_px=32, margin=1.0), audio=AudioNeed(seconds=20)
)
WINDOWS = Needs(audio=AudioNeed(sample_rate_hz=22_050, seconds=2, window_s=1))


def _detector(branch: Branch, needs: Needs) -> ManifestDetector:
    ready = DetectorState.READY
    return ManifestDetector(name=branch, version="1", branch=branch, state=ready, weights=DIGEST, needs=needs)


MANIFEST = Manifest(
    detectors=(
        _detector(Branch.VISUAL, PICTURES), _detector(Branch.LIPSYNC, MOUTHS), _detector(Branch.AUDIO, WINDOWS)
    ),
    faces=FaceDetector.VERSION,
    fusion=DIGEST,
)  # fmt: skip


class Ordeal:
    """One fence, through which every file goes."""

    def __init__(self, folder: Path) -> None:
        self.kit, self.fence, self.faces = Kit(folder), Fence(LIMITS), FaceDetector()
        self._path = folder / "clip.mp4"
        self._greet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fence.close()
        self.kit.bait.close()

    def outcome(self, content: bytes) -> str:
        """ANALYSED, or the code of the refusal.

        Fails if that took longer than it may, if the refusal says nothing, if the bait was touched, if a process was
        left behind, and if the fence had to be started anew or does not read the next file.
        """
        self._path.write_bytes(content)
        zygote, started = self.fence._zygote, time.monotonic()
        self.kit.bait.taken()
        error = self._refusal()
        assert time.monotonic() - started < LIMITS.wall_s + GRACE_S
        assert self.kit.bait.taken() == []
        assert zygote is not None
        assert children(zygote._process.pid) == []
        self._greet()
        assert self.fence._zygote is zygote
        if error is None:
            return ANALYSED
        assert str(error).startswith(SENTENCES[error.code])
        assert str(error).isprintable()
        return error.code

    def _refusal(self) -> MediaError | None:
        try:
            read_clip(self.fence, self._path, MANIFEST, self.faces)
        except MediaError as error:
            return error
        return None

    def _greet(self) -> None:
        assert self.fence.probe(self.kit.paths["wav"]).kind is MediaKind.AUDIO


def children(parent: int) -> list[int]:
    """Processes that a process has started and that are still there, ended or not."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.split()[1]) == parent:
            found.append(int(status.parent.name))
    return found
