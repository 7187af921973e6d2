"""The fence: reads hostile media in a confined child process and hands back checked values.

The caller's process never demuxes or decodes. It passes the open file as a descriptor to the zygote, which forks a
child with limits on memory, CPU time, wall-clock time and output, and with no descriptor left for a decoder to open
anything else (`zygote` says what that does not stop). What the child says is checked here, because whoever takes over
a decoder writes it; what it shows are pixels and samples, of which any value is as good as another.
"""

import fcntl
import json
import mmap
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError

from clipwarden.shared.clip import Sound
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import MediaProbe, SamplingPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.decoded import Shot
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.ring import DONE, Layout
from clipwarden.shared.media.warden import Child, Zygote

_GRACE_S = 5.0
_MOST_SLOTS = 4
_LONGEST_NAME = 100


class Fence:
    """Probes and reads media files, one at a time; safe to share between threads.

    The zygote is started on first use and again if it died or if the process was forked since.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote. The fence can be used again."""
        with self._lock:
            if self._zygote is not None:
                self._zygote.stop()
            self._zygote = None

    def probe(self, path: Path) -> MediaProbe:
        """What the file is. Errors as for `open`."""
        with self.open(path) as media:
            return media.probe

    @contextmanager
    def open(self, path: Path) -> Iterator["Media"]:
        """A probed file, ready to be read once.

        Raises MediaError if it cannot be analysed, WorkerFault if no decoder can be started, OSError if there is no
        such file.
        """
        with path.open("rb") as stream, self._lock, _shared_memory(self.limits.shared_bytes) as memory:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes == 0:
                raise MediaError(RejectCode.EMPTY_FILE)
            with self._running().serve(stream.fileno(), memory) as child:
                reply = child.ask({"size_bytes": size_bytes, "limits": asdict(self.limits)})
                yield Media(_probe(reply, self.limits), self.limits, child, memory)

    def _running(self) -> "Zygote":
        if self._zygote is None or not self._zygote.alive:
            if self._zygote is not None:
                self._zygote.stop()
            self._zygote = Zygote(self.limits.wall_s + _GRACE_S)
        return self._zygote


class Media:
    """A file that its decoder holds open: what it is, and one pass over what is planned of it."""

    def __init__(self, probe: MediaProbe, limits: MediaLimits, child: Child, memory: int) -> None:
        self.probe = probe
        self.sounds: Mapping[int, Sound] = {}
        """By sample rate, once everything has been read."""
        self._limits, self._child, self._memory = limits, child, memory

    def read(self, plan: SamplingPlan) -> Iterator[Shot]:
        """The planned frames in display order, those that the file does not reach left out; then `sounds` is set.

        Can be done once. Raises MediaError.
        """
        wanted = plan.frame_indices if self.probe.has_video else ()
        layout = self._layout(plan, bool(wanted))
        request = {"frames": wanted, "sounds": [s.model_dump() for s in layout.sounds]}
        self._child.tell(
            json.dumps({**request, "slots": layout.slots, "slot_bytes": layout.slot_bytes}).encode() + b"\n"
        )
        memory = mmap.mmap(self._memory, max(layout.total_bytes, 1))
        left, turn = deque(wanted), 0
        while "shot" in (reply := self._child.hear()):
            yield self._shot(reply["shot"], left, layout, memory, turn)
            self._child.tell(DONE)
            turn += 1
        try:
            filled = {int(rate): [int(n) for n in lengths] for rate, lengths in reply["filled"].items()}
            self.sounds = layout.heard(memory, filled)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise _nonsense() from error

    def _layout(self, plan: SamplingPlan, pictures: bool) -> Layout:
        """As many slots as fit; a picture is at most as large as the probe says, and never larger than the limit."""
        sounds = plan.sounds if self.probe.has_audio else ()
        if not pictures:
            return Layout(0, 0, sounds)
        scale = min(1.0, self._limits.max_side_px / max(self.probe.width, self.probe.height))
        slot_bytes = max(round(self.probe.width * scale), 1) * max(round(self.probe.height * scale), 1) * 3
        slot_bytes = min(slot_bytes, self._limits.ring_bytes)
        return Layout(min(max(self._limits.ring_bytes // slot_bytes, 1), _MOST_SLOTS), slot_bytes, sounds)

    def _shot(self, said: object, left: "deque[int]", layout: Layout, memory: mmap.mmap, turn: int) -> Shot:
        try:
            index, time_s, height, width = _Said.model_validate({"shot": said}).shot
        except ValidationError as error:
            raise _nonsense() from error
        while left and left[0] < index:
            left.popleft()
        if not left or left.popleft() != index or height * width * 3 > layout.slot_bytes:
            raise _nonsense()
        return Shot(index, time_s, layout.picture(memory, turn, height, width))


class _Said(BaseModel):
    """What the child says of a picture: index, time, height, width."""

    model_config = ConfigDict(allow_inf_nan=False)

    shot: tuple[int, NonNegativeFloat, PositiveInt, PositiveInt]


@contextmanager
def _shared_memory(size_bytes: int) -> Iterator[int]:
    """The descriptor of nameless memory that nobody can resize; a shrunk one would fault its reader."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size_bytes)
            yield file.fileno()
        return
    memory = os.memfd_create("clipwarden", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, size_bytes)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        yield memory
    finally:
        os.close(memory)


def _probe(reply: Mapping[str, Any], limits: MediaLimits) -> MediaProbe:
    try:
        probe = MediaProbe.model_validate(reply["probe"])
    except (KeyError, ValidationError) as error:
        raise _nonsense() from error
    if max(len(probe.container), len(probe.video_codec or ""), len(probe.audio_codec or "")) > _LONGEST_NAME:
        raise _nonsense()
    if probe.width * probe.height > limits.max_pixels:
        raise MediaError(RejectCode.TOO_MANY_PIXELS, f"{probe.width} x {probe.height}")
    if probe.frames > limits.max_frames:
        raise MediaError(RejectCode.TOO_MANY_FRAMES, f"{probe.frames}")
    if probe.duration_s > limits.max_duration_s:
        raise MediaError(RejectCode.TOO_LONG, f"{probe.duration_s:.0f} s")
    return probe


def _nonsense() -> MediaError:
    return MediaError(RejectCode.DECODE_FAILED, "the decoder gave a nonsensical answer")
