"""The entry points of the CLIP adapter's card, for notebooks: from frames in memory, a folder of pictures, a video.

Files are opened only behind the fence, as everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.clip.adapters import FRAMES
from clipwarden.models.clip.clip_adapter import NEED, ClipAdapter, ClipScores
from clipwarden.models.faces import FaceDetector
from clipwarden.models.kernels import resize
from clipwarden.models.views import prepare
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import SamplingPlan, ViewPlan
from clipwarden.shared.errors import DetectorError, MediaError
from clipwarden.shared.media.fence import Fence

PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})


def predict_from_frames(detector: ClipAdapter, frames: Sequence[NDArray[np.uint8]]) -> ClipScores:
    """Judge RGB frames (H, W, 3) of any size, in order of time; of more than twelve, twelve spread over them.

    Raises DetectorError without a frame.
    """
    if not frames:
        raise DetectorError("a clip must have at least one frame")
    chosen = [frames[i] for i in _chosen(len(frames))]
    return detector.examine(np.stack([resize(frame, NEED.size_px, NEED.kernel) for frame in chosen]))


def predict_from_folder(detector: ClipAdapter, fence: Fence, folder: Path) -> ClipScores:
    """Judge the PNG and JPEG pictures of a folder, in the order of their names.

    Raises MediaError if there is none, or one cannot be read.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not paths:
        raise MediaError(RejectCode.NOT_MEDIA, f"no PNG or JPEG picture in {folder}")
    return detector.examine(np.concatenate([_frames(fence, paths[i]) for i in _chosen(len(paths))]))


def predict_from_video(detector: ClipAdapter, fence: Fence, path: Path) -> ClipScores:
    """Judge a video file. Raises MediaError if it cannot be read or has no picture."""
    return detector.examine(_frames(fence, path))


def _frames(fence: Fence, path: Path) -> NDArray[np.uint8]:
    """Twelve frames spread over a file (T, 384, 384, 3), or all it has."""
    with fence.open(path) as media:
        plan = SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=tuple(_chosen(media.probe.frames))),))
        images = prepare(media, plan, FaceDetector()).view(NEED).images
    if not len(images):
        raise MediaError(RejectCode.NO_STREAMS, "no picture")
    return images


def _chosen(count: int) -> list[int]:
    """Up to twelve of `count` places, as the card spreads them."""
    return np.linspace(0, count - 1, min(count, FRAMES), dtype=np.int64).tolist() if count else []
