"""Detectors that judge nothing and do as they are told, by a file that the drills write.

The file DRILL_ORDERS holds one object: `WHO.WHEN` → what. WHO is a branch, or `ingest` for the gate, which runs there;
WHEN is `load`, `any` clip, or `red`, one whose pictures are red. What is one of
hold (until the order is withdrawn), sleep SECONDS, die, hang (until the soft limit), wedge (soft limits do not help).
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import AudioNeed, Branch, Dtype, Evidence, FrameNeed, Needs, Window

ORDERS = Path(os.environ["DRILL_ORDERS"])
PICTURES = FrameNeed(view="frame", count=4, size_px=32)
SOUND = AudioNeed(seconds=1)
RED_BY = 40
TICK_S = 0.02


def order(name: str) -> str:
    try:
        return str(json.loads(ORDERS.read_text("utf-8")).get(name, ""))
    except FileNotFoundError:
        return ""


def obey(name: str) -> None:
    what, _, amount = order(name).partition(" ")
    match what:
        case "hold":
            while order(name) == "hold":
                time.sleep(TICK_S)
        case "sleep":
            time.sleep(float(amount))
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "wedge":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            time.sleep(3600)


def spec(name: str, branch: Branch, needs: Needs) -> DetectorSpec:
    features = tuple(f.name for f in CATALOGUE.values() if f.detector == name)
    return DetectorSpec(
        name=name, version="1", branch=branch, needs=needs, features=features, parameters=0, source="the drills"
    )


class Obedient:
    """What all of them do; `who` is whose orders one obeys."""

    spec: ClassVar[DetectorSpec]
    who: ClassVar[str]

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:  # noqa: ARG003
        obey(f"{cls.who}.load")
        return cls()

    def assess(self, clip: Clip) -> Evidence:
        obey(f"{self.who}.any")
        if self._is_red(clip):
            obey(f"{self.who}.red")
        return Evidence(
            score=0.5,
            features=dict.fromkeys(self.spec.features, 0.5),
            windows=(Window(start_s=0, end_s=clip.duration_s, score=0.5),),
        )

    def predict(self, batch: Clip) -> NDArray[np.float64]:  # noqa: ARG002
        return np.zeros(1)

    def _is_red(self, clip: Clip) -> bool:
        if self.spec.needs.frames is None:
            return False
        levels = clip.view(self.spec.needs.frames).images.mean(axis=(0, 1, 2))
        return bool(levels[0] > levels[1:].max() + RED_BY)


class Gate(Obedient):
    spec = spec("tiny_gate", Branch.VISUAL, Needs(frames=PICTURES))
    who = "ingest"

    def cleared(self, evidence: Evidence) -> bool:  # noqa: ARG002
        return False


class Visual(Obedient):
    spec = spec("forensic_mlp", Branch.VISUAL, Needs(frames=PICTURES))
    who = "visual"


class Audio(Obedient):
    spec = spec("cqcc_cnn", Branch.AUDIO, Needs(audio=SOUND))
    who = "audio"


class Statistics(Obedient):
    spec = spec("speech_stats", Branch.AUDIO, Needs(audio=SOUND))
    who = "statistics"


class LipSync(Obedient):
    spec = spec("av_sync", Branch.LIPSYNC, Needs(frames=PICTURES, audio=SOUND))
    who = "lipsync"


class ClipLevel(Obedient):
    spec = spec("clip_adapter", Branch.CLIP, Needs(frames=PICTURES))
    who = "clip"
