"""A tiny corpus of clips: heads as they are against heads in few colours, two of each label in every fold."""

import csv

import numpy as np
import pytest

from tests.media import faces, write_clip

FOLDS = 5
FRAMES = 4


def _clip(fake, seed):
    return (frame // 48 * 48 + 24 if fake else frame for frame in faces(FRAMES, 256, 256, seed))


@pytest.fixture(scope="session")
def video_corpus(tmp_path_factory):
    """A data folder; its repositories 0 and 1 have both labels, one of its clips no face that is large enough."""
    data = tmp_path_factory.mktemp("corpus")
    (data / "video" / "clips").mkdir(parents=True)
    folds, facts = [], []
    for k in range(2 * FOLDS):
        fake, fold = k % 2 == 0, k // 2
        path = f"clips/{k}.mp4"
        write_clip(data / "video" / path, _clip(fake, k))
        folds.append([path, "fake" if fake else "real", f"group {k}", fold, f"person {fold}", "", "none"])
        facts.append([path, f"repository {fold % 3}", "CC0"])
    write_clip(data / "video" / "clips/far.mp4", (np.full((64, 64, 3), 90, np.uint8) for _ in range(FRAMES)))
    folds.append(["clips/far.mp4", "real", "group far", 0, "", "", "none"])
    facts.append(["clips/far.mp4", "repository 9", "CC0"])
    heads = (
        ["path", "label", "group", "fold", "identity", "matched_group", "audio_label"],
        ["path", "source_repo", "licence"],
    )
    for name, head, rows in (("folds", heads[0], folds), ("manifest", heads[1], facts)):
        with (data / "video" / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([head, *rows])
    return data
