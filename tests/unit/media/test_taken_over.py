"""What a decoder that a file has taken over may say: the caller believes nothing that cannot be so."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import FrameNeed, MediaProbe, SamplingPlan, SoundPlan, ViewPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.warden import Child, Zygote

PROBE: dict[str, Any] = {
    "kind": "video", "container": "mov", "duration_s": 2.0, "width": 64, "height": 48, "fps": 25.0, "frames": 50,
    "has_video": True, "has_audio": True, "sample_rate_hz": 16_000, "size_bytes": 1000,
}  # fmt: skip
NEED = FrameNeed(view="frame", count=3, size_px=64)
PLAN = SamplingPlan(
    views=(ViewPlan(need=NEED, frame_indices=(0, 10, 20)),),
    sounds=(SoundPlan(sample_rate_hz=16_000, spans=((0.0, 1.0),)),),
)
SHOTS = [{"shot": [index, index / 25, 48, 64]} for index in (0, 10, 20)]
HEARD = {"filled": {"16000": [16_000]}}


class TakenOver:
    """A decoder that says what it was told to say, whatever it is asked."""

    alive = True

    def __init__(self, lines: Sequence[object]) -> None:
        texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        self._said = b"".join(text + b"\n" for text in texts)

    @contextmanager
    def serve(self, *_: int) -> Iterator[Child]:
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        talking = Thread(target=self._talk, args=[theirs])
        talking.start()
        with ours, ours.makefile("rb") as words:
            yield Child(ours, words, lambda: False)
        talking.join()

    def _talk(self, line: socket.socket) -> None:
        with line, suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(self._said)
            line.shutdown(socket.SHUT_WR)
            while line.recv(1 << 16):
                pass

    def stop(self) -> None:
        pass


def heard(path: Path, *lines: object) -> tuple[MediaProbe, list[int]]:
    """What the caller makes of it: the probe and the indices of the frames."""
    with Fence(MediaLimits()) as fence:
        fence._zygote = cast("Zygote", TakenOver(lines))
        with fence.open(path) as media:
            return media.probe, [shot.index for shot in media.read(PLAN)]


def test_the_truth_is_believed(wav: Path) -> None:
    probe, frames = heard(wav, {"probe": PROBE}, *SHOTS, HEARD)
    assert probe == MediaProbe.model_validate(PROBE)
    assert frames == [0, 10, 20]


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"frames": -1},
        {"frames": 10**30},
        {"width": 10**400},
        {"width": 8193, "height": 8192},
        {"duration_s": float("nan")},
        {"duration_s": float("inf")},
        {"kind": "malware"},
        {"container": "x" * 1_000_000},
        {"video_codec": "x" * 1_000_000},
        {"more": "than asked"},
    ],
    ids=lambda lie: str(lie)[:40],
)
def test_a_probe_that_cannot_be_is_refused(wav: Path, lie: dict[str, Any]) -> None:
    with pytest.raises(MediaError) as caught:
        heard(wav, {"probe": PROBE | lie} if lie else {"probe": None}, *SHOTS, HEARD)
    assert caught.value.code in {RejectCode.DECODE_FAILED, RejectCode.TOO_MANY_PIXELS, RejectCode.TOO_MANY_FRAMES}
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "lines",
    [
        [{"shot": [5, 0.2, 48, 64]}],
        [SHOTS[1], SHOTS[0]],
        [SHOTS[0], SHOTS[0]],
        [{"shot": [0, 0.0, 100_000, 100_000]}],
        [{"shot": [0, 0.0, -1, -1]}],
        [{"shot": [0, -5.0, 48, 64]}],
        [b'{"shot": [0, NaN, 48, 64]}'],
        [b'{"shot": [0, 1e999, 48, 64]}'],
        [{"shot": 7}],
        [*SHOTS, {"filled": 7}],
        [*SHOTS, {"filled": {}}],
        [*SHOTS, {"filled": {"16000": [16_001]}}],
        [*SHOTS, {"filled": {"16000": [-1]}}],
        [*SHOTS, {"filled": {"16000": []}}],
        [*SHOTS, {"filled": {"16000": ["many"]}}],
        [*SHOTS, b'{"filled": {"16000": [1e999]}}'],
        [*SHOTS, {"nothing": "known"}],
        [b"[" * 100_000],
        [b'{"a":' * 100_000],
        [b"9" * 100_000],
        [b"\xff" * 100],
        [b"x" * 10_000_000],
        [b"no JSON"] * 1000,
        [],
    ],
    ids=lambda lines: str(lines)[:50],
)
def test_an_answer_that_cannot_be_is_refused(wav: Path, lines: list[object]) -> None:
    with pytest.raises(MediaError) as caught:
        heard(wav, {"probe": PROBE}, *lines)
    assert caught.value.code is RejectCode.DECODE_FAILED


@pytest.mark.parametrize("word", ["\x1b[2J", "\0", "x" * 10_000, {"a": 1}, None])
def test_what_a_refusal_adds_is_short_and_printable(wav: Path, word: object) -> None:
    with pytest.raises(MediaError) as caught:
        heard(wav, {"code": "truncated", "detail": word})
    assert caught.value.code is RejectCode.TRUNCATED
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("code", ["fetched", "", 7, None, ["truncated"], {"a": 1}])
def test_an_unknown_code_counts_as_a_failure(wav: Path, code: object) -> None:
    with pytest.raises(MediaError) as caught:
        heard(wav, {"code": code})
    assert caught.value.code is RejectCode.DECODE_FAILED
