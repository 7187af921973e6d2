"""Two short clips of faces with speech, looked through once for all tests of the forge."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipwarden.models.training.forge.footage import LIMITS, Footage
from clipwarden.models.training.forge.forging import Forge
from clipwarden.models.training.forge.writing import Timed, write_clip
from clipwarden.shared.media.fence import Fence
from tests.media import RATE_HZ, faces, silence, speech

FRAMES, SIDE_PX, FPS = 16, 200, 25


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips: own, other (mirrored, darker, another voice), mute (a silent track), dumb (no track).

    Written by the forge, which writes the same bytes each time: what a recipe draws depends on its clip's digest.
    """
    made = tmp_path_factory.mktemp("forge")
    mirrored = [(0.8 * p[:, ::-1]).astype(np.uint8) for p in faces(12, SIDE_PX, SIDE_PX, seed=3)]
    _write(made / "own.mp4", list(faces(FRAMES, SIDE_PX, SIDE_PX)), speech(1.4, seed=1))
    _write(made / "other.mp4", mirrored, speech(0.7, seed=2))
    _write(made / "mute.mp4", list(faces(6, SIDE_PX, SIDE_PX)), silence(0.24))
    _write(made / "dumb.mp4", list(faces(6, SIDE_PX, SIDE_PX)), silence(0))
    return made


def _write(path: Path, pictures: list[NDArray[np.uint8]], wave: NDArray[np.int16]) -> None:
    frames = [Timed(k / FPS, picture) for k, picture in enumerate(pictures)]
    write_clip(path, frames, FPS, wave.astype(np.float32) / 32768, RATE_HZ)


@pytest.fixture(scope="package")
def fence() -> Iterator[Fence]:
    with Fence(LIMITS) as opened:
        yield opened


@pytest.fixture(scope="package")
def forge(fence: Fence) -> Forge:
    return Forge(fence, seconds=3.0)


@pytest.fixture(scope="package")
def own(forge: Forge, folder: Path) -> Footage:
    return forge.look(folder / "own.mp4")


@pytest.fixture(scope="package")
def other(forge: Forge, folder: Path) -> Footage:
    return forge.look(folder / "other.mp4")
