"""Run by Python at the start of every process that the drills give this folder on PYTHONPATH.

Workers that are to obey orders get detectors that do; a worker whose clock is to be wrong gets a wrong clock.
"""

import datetime as dt
import os
import time

SKEW_S = float(os.environ.get("DRILL_SKEW_S", "0"))
RIGHT = dt.datetime


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, RIGHT)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, RIGHT)


class _Datetime(RIGHT, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return RIGHT.now(tz) + dt.timedelta(seconds=SKEW_S)


def _skew() -> None:
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + SKEW_S
    time.time_ns = lambda: right_ns() + int(SKEW_S * 1e9)
    dt.datetime = _Datetime  # type: ignore[misc]


if SKEW_S:
    _skew()
if "DRILL_ORDERS" in os.environ:
    from clipwarden.models.detector import DETECTORS

    DETECTORS.update(
        tiny_gate="obedient:Gate",
        forensic_mlp="obedient:Visual",
        cqcc_cnn="obedient:Audio",
        speech_stats="obedient:Statistics",
        av_sync="obedient:LipSync",
        clip_adapter="obedient:ClipLevel",
    )
