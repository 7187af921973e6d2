"""What hostile files are made of: real files of every container, and bait that none of them may touch."""

import ctypes
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from clipwarden.shared.codes import RejectCode
from tests import media

ANALYSED = "analysed"
FINE = (ANALYSED,)
BROKEN = (RejectCode.TRUNCATED, RejectCode.DECODE_FAILED, RejectCode.NO_STREAMS)
CANARY = "this text is named by hostile files and must never be read"
_IN_ACCESS, _IN_OPEN = 0x01, 0x20
Keep = Callable[[av.Packet], bool]


class Bait:
    """A file that is watched and a loopback port that is listened on."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary.txt"
        self.canary.write_text(CANARY)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        libc = ctypes.CDLL(None)
        self._watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._watch, bytes(self.canary), _IN_ACCESS | _IN_OPEN) > 0

    def taken(self) -> list[str]:
        """What was touched since the last call."""
        found = []
        with suppress(BlockingIOError):
            found += ["file"] if os.read(self._watch, 4096) else []
        with suppress(BlockingIOError):
            self._listener.accept()[0].close()
            found.append("address")
        return found

    def close(self) -> None:
        self._listener.close()
        os.close(self._watch)


class Kit:
    """Real files, by name, and the bait."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bait = folder, Bait(folder)
        frames, wave = list(media.faces(24, 160, 160)), media.speech(1)
        self.paths = {
            "mp4": media.write_clip(folder / "last.mp4", iter(frames), wave),
            "index first": media.write_clip(
                folder / "first.mp4", iter(frames), wave, options={"movflags": "faststart"}
            ),
            "webm": media.write_clip(folder / "x.webm", iter(frames), wave),
            "avi": media.write_clip(folder / "x.avi", iter(frames), wave),
        }
        self.paths |= {suffix: remuxed(self.paths["mp4"], folder / f"x.{suffix}") for suffix in ("ts", "mkv")}
        self.paths |= {s: media.write_sound(folder / f"x.{s}", wave) for s in ("wav", "flac", "mp3", "ogg")}
        self.paths |= {s: media.write_still(folder / f"x.{s}", frames[0]) for s in ("jpg", "png", "webp", "bmp")}
        self.whole = {name: path.read_bytes() for name, path in self.paths.items()}

    def fill(self, form: str) -> bytes:
        """A text with {file}, {address} and {port} of the bait in it."""
        address = f"http://127.0.0.1:{self.bait.port}/secret"
        return form.format(file=self.bait.canary, address=address, port=self.bait.port).encode()

    def remux(self, name: str, suffix: str, keep: Keep = lambda _: True, shift_s: int = 0, **options: str) -> bytes:
        """A real file in another container, some of its packets, or at another time."""
        return remuxed(self.paths[name], self.folder / f"remuxed.{suffix}", keep, shift_s, **options).read_bytes()

    def tone(self, suffix: str, codec: str, rate_hz: int) -> bytes:
        """Half a second of sound at a rate of its own."""
        wave = (9000 * np.sin(np.arange(rate_hz // 2) / 20)).astype(np.int16)
        path = self.folder / f"{rate_hz}.{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=rate_hz, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode())
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile file; `may` is what may become of it: rejection codes, or ANALYSED."""

    may: frozenset[str]
    make: Callable[[Kit], bytes]


def cases(rows: Mapping[str, tuple[Iterable[str], Callable[[Kit], bytes]]]) -> dict[str, Case]:
    return {name: Case(frozenset(may), make) for name, (may, make) in rows.items()}


def remuxed(source: Path, target: Path, keep: Keep = lambda _: True, shift_s: int = 0, **options: str) -> Path:
    """The packets of a file that `keep` accepts in another container, all later by `shift_s`."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in read.streams}
        for packet in read.demux():
            if packet.pts is not None and packet.dts is not None and packet.time_base and keep(packet):
                shift = round(shift_s / packet.time_base)
                packet.stream = streams[packet.stream_index]
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                out.mux(packet)
    return target
