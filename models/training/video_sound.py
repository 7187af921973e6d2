"""Scores the sound of the video clips with a finished speech network: material for the fusion heads."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clipwarden.models.detector import Detector
from clipwarden.models.training.run_folder import ScoreRow
from clipwarden.models.training.video_data import VideoClip, prepared
from clipwarden.shared.errors import NotApplicable


def score_sound(data: Path, clips: Sequence[VideoClip], detector: Detector, threads: int) -> Iterator[ScoreRow]:
    """One row per clip with audible sound; its label is what the data says of the sound: bonafide or unknown.

    No recording is known to lie in both corpora; speakers and makers of speech may. The network is the final one.
    """
    for clip, content in prepared(data, clips, detector.spec, threads):
        try:
            score = detector.assess(content).score
        except NotApplicable:
            continue
        logit = float(np.log(score) - np.log1p(-score))
        yield ScoreRow(clip.path, clip.audio_label, clip.group, clip.fold, logit)
