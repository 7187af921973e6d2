"""The shared memory between the fence's child, which fills it, and the caller, which reads it.

First come slots for pictures, used in turn: the child waits until the caller is done with a slot. Then comes the room
for the sound, span after span. Whoever takes over a decoder can write anything here, but only into these bytes.
"""

import json
import mmap
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.clip import Sound
from clipwarden.shared.contracts import SoundPlan

DONE = b"."
"""What the caller sends for each slot that is free again."""


@dataclass(slots=True)
class Span:
    """A stretch of sound to fill: `buffer` int16 starts at sample `first` of the clip; `filled` of it is known."""

    first: int
    buffer: NDArray[np.int16]
    filled: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """How the memory is divided."""

    slots: int
    slot_bytes: int
    sounds: tuple[SoundPlan, ...]

    @property
    def total_bytes(self) -> int:
        samples = sum(length for plan in self.sounds for _, length in ranges(plan))
        return self.slots * self.slot_bytes + 2 * samples

    def picture(self, memory: mmap.mmap, turn: int, height: int, width: int) -> NDArray[np.uint8]:
        """uint8 (height, width, 3) over the slot whose turn it is."""
        offset = turn % self.slots * self.slot_bytes
        return np.frombuffer(memory, np.uint8, height * width * 3, offset).reshape(height, width, 3)

    def spans(self, memory: mmap.mmap) -> dict[int, list[Span]]:
        """The room for the sound, by sample rate."""
        offset, found = self.slots * self.slot_bytes, dict[int, list[Span]]()
        for plan in self.sounds:
            found[plan.sample_rate_hz] = []
            for first, length in ranges(plan):
                found[plan.sample_rate_hz].append(Span(first, np.frombuffer(memory, np.int16, length, offset)))
                offset += 2 * length
        return found

    def heard(self, memory: mmap.mmap, filled: Mapping[int, Sequence[int]]) -> dict[int, Sound]:
        """The sound by rate, of which `filled` samples of each span are known. Raises ValueError if that cannot be."""
        return {
            plan.sample_rate_hz: _sound(plan.sample_rate_hz, spans, filled[plan.sample_rate_hz])
            for plan, spans in zip(self.sounds, self.spans(memory).values(), strict=True)
        }


def ranges(plan: SoundPlan) -> list[tuple[int, int]]:
    """First sample and number of samples of each span of a plan."""
    bounds = [(round(a * plan.sample_rate_hz), round(b * plan.sample_rate_hz)) for a, b in plan.spans]
    return [(first, end - first) for first, end in bounds if end > first]


@dataclass(frozen=True, slots=True)
class Line:
    """The child's connection with its caller: what it may write to, and what it hears."""

    memory: mmap.mmap
    reply: socket.socket
    words: BufferedReader


class ChildRing:
    """The child's side: pictures are announced on the line, and a slot is taken again when the caller says so."""

    def __init__(self, line: Line, layout: Layout) -> None:
        self.slot_bytes = layout.slot_bytes
        self._line, self._layout = line, layout
        self._turn, self._free = 0, layout.slots

    def slot(self, height: int, width: int) -> NDArray[np.uint8]:
        """The next free uint8 (height, width, 3). Raises EOFError if the caller has left."""
        if not self._free:
            if self._line.words.read(1) != DONE:
                raise EOFError
            self._free += 1
        return self._layout.picture(self._line.memory, self._turn, height, width)

    def publish(self, index: int, time_s: float, height: int, width: int) -> None:
        """Announce the picture in the slot."""
        self._line.reply.sendall(json.dumps({"shot": [index, time_s, height, width]}).encode() + b"\n")
        self._turn, self._free = self._turn + 1, self._free - 1


def _sound(rate_hz: int, spans: Sequence[Span], filled: Sequence[int]) -> Sound:
    rows = [(span, known) for span, known in zip(spans, filled, strict=True) if known]
    if any(not 0 < known <= len(span.buffer) for span, known in rows):
        raise ValueError("more sound than there is room for")
    whole = rows[0][0].buffer[: rows[0][1]] if len(rows) == 1 else None
    return Sound(
        whole if whole is not None else np.concatenate([np.zeros(0, np.int16), *(s.buffer[:n] for s, n in rows)]),
        np.array([span.first / rate_hz for span, _ in rows], np.float64),
        np.array([known for _, known in rows], np.int64),
    )
