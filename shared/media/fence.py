"""The fence: reads hostile media in a confined child process and hands back checked values.

The caller's process never demuxes or decodes. It passes the open file as a descriptor to the zygote, which forks a
child with limits on memory, CPU time, wall-clock time and output, and with no descriptor left for a decoder to open
anything else (`zygote` says what that does not stop). The reply and the arrays are checked here, because whoever takes
over a decoder writes them.
"""

import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import MediaProbe, SamplingPlan
from clipwarden.shared.errors import MediaError, WorkerFault
from clipwarden.shared.media.decoded import Decoded
from clipwarden.shared.media.limits import MediaLimits

_START_S = 60.0
_GRACE_S = 5.0
_MOST_REPLY_BYTES = 4 * 1024 * 1024
_LONGEST_DETAIL = 300
_NOTICED_S = 0.5  # how long after its last word the end of the zygote may take to be seen
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LIMIT_SIGNALS = frozenset({signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL, signal.SIGXFSZ})


class _Read(BaseModel):
    """The child's account of its output: (index, time, height, width) per frame, then the length of the wave."""

    model_config = ConfigDict(extra="forbid")

    frames: list[tuple[int, FiniteFloat, int, int]]
    samples: int = Field(ge=0)

    @property
    def sizes(self) -> list[int]:
        return [height * width * 3 for _, _, height, width in self.frames]


class Fence:
    """Probes and reads media files, one at a time; safe to share between threads.

    The zygote is started on first use and again if it died or if the process was forked since.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None

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
        """What the file is. Raises MediaError if it cannot be analysed, WorkerFault if no decoder can be
        started.
        """
        with _output() as out:
            reply = self._ask(path, {"do": "probe"}, out)
        try:
            probe = MediaProbe.model_validate(reply["probe"])
        except (KeyError, ValidationError) as error:
            raise MediaError(RejectCode.DECODE_FAILED, "the decoder gave a nonsensical answer") from error
        if probe.duration_s > self.limits.max_duration_s:
            raise MediaError(RejectCode.TOO_LONG, f"{probe.duration_s:.0f} s")
        return probe

    def read(self, path: Path, probe: MediaProbe, plan: SamplingPlan) -> Decoded:
        """The planned frames and sound, in one pass over the file. Errors as for `probe`."""
        wanted = plan.frame_indices if probe.has_video else ()
        seconds = min(plan.audio_seconds, self.limits.max_duration_s) if probe.has_audio else 0.0
        with _output() as out:
            reply = self._ask(path, {"do": "read", "frames": wanted, "audio_seconds": seconds}, out)
            try:
                return _decoded(_Read.model_validate(reply["read"]), set(wanted), self.limits, out)
            except (KeyError, ValueError) as error:
                raise MediaError(RejectCode.DECODE_FAILED, "the decoder gave a nonsensical answer") from error

    def _ask(self, path: Path, request: Mapping[str, Any], out: BinaryIO) -> dict[str, Any]:
        with path.open("rb") as stream, self._lock:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes == 0:
                raise MediaError(RejectCode.EMPTY_FILE)
            full = {**request, "size_bytes": size_bytes, "limits": asdict(self.limits)}
            reply = self._running().ask(stream.fileno(), out.fileno(), json.dumps(full).encode())
        if "exit" in reply:
            raise _died(reply["exit"])
        if "code" in reply:
            raise _refused(reply["code"], reply.get("detail"))
        return reply

    def _running(self) -> "_Zygote":
        if self._zygote is None or not self._zygote.alive:
            if self._zygote is not None:
                self._zygote.stop()
            self._zygote = _Zygote(self.limits.wall_s + _GRACE_S)
        return self._zygote


class _Zygote:
    """The forking process, seen from outside."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._owner = timeout_s, os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # A bare environment: nothing of the operator's secrets is where a decoder could read it.
            environment = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            environment |= {k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "clipwarden.shared.media.zygote"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        self._await_ready()

    @property
    def alive(self) -> bool:
        return self._owner == os.getpid() and self._process.poll() is None

    def _await_ready(self) -> None:
        self._control.settimeout(_START_S)
        try:
            ready = self._control.recv(16)
        except OSError:
            ready = b""
        if not ready:
            self._kill()
            _, words = self._process.communicate()
            self.stop()
            raise WorkerFault(f"the media decoder does not start: {words.decode(errors='replace').strip()[-2000:]}")

    def ask(self, source: int, output: int, request: bytes) -> dict[str, Any]:
        """Send one request and wait for the child's answer or its end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            with theirs:
                try:
                    socket.send_fds(self._control, [b"?"], [source, output, theirs.fileno()])
                except OSError as error:
                    self._kill()
                    raise WorkerFault(f"the media decoder is gone: {error}") from error
            return self._exchange(ours, request)

    def _exchange(self, ours: socket.socket, request: bytes) -> dict[str, Any]:
        ours.settimeout(self._timeout_s)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                ours.sendall(request)
                ours.shutdown(socket.SHUT_WR)
            text = _read_all(ours)
        except TimeoutError:
            self._kill()
            return {"exit": -signal.SIGALRM}
        except ConnectionResetError:
            text = b""
        except BaseException:  # a time limit or Ctrl-C of the caller: the child must not go on
            self._kill()
            raise
        if not text and self._ended():
            raise WorkerFault("the media decoder was ended from outside")
        return _parsed(text)

    def _ended(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_NOTICED_S)
        return self._process.returncode is not None

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._owner == os.getpid():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)

    def stop(self) -> None:
        """Close our end, which ends the zygote and its child; only the process that started it may wait for
        it.
        """
        self._control.close()
        if self._process.stderr:
            self._process.stderr.close()
        if self._owner != os.getpid():
            self._process.returncode = 0  # keeps Popen from warning about somebody else's child
            return
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()


def _read_all(ours: socket.socket) -> bytes:
    parts, total = [], 0
    while chunk := ours.recv(1 << 16):
        total += len(chunk)
        if total > _MOST_REPLY_BYTES:
            return b""
        parts.append(chunk)
    return b"".join(parts)


def _parsed(text: bytes) -> dict[str, Any]:
    """The last line counts: the zygote's word on how a child ended comes after whatever the child wrote."""
    try:
        reply = json.loads(text.rpartition(b"\n")[2])
    except ValueError:
        reply = None
    return reply if isinstance(reply, dict) else {"exit": 1}


def _refused(code: object, detail: object) -> MediaError:
    known = next((c for c in RejectCode if c == code), RejectCode.DECODE_FAILED)
    return MediaError(known, "".join(c for c in str(detail or "") if c.isprintable())[:_LONGEST_DETAIL])


def _died(exitcode: object) -> MediaError | WorkerFault:
    """What a child's end says: a limit it hit, a stop from outside, or a decoder that the file broke."""
    number = -exitcode if isinstance(exitcode, int) else 0
    if number in _STOP_SIGNALS:
        return WorkerFault(f"the media decoder was stopped by {signal.Signals(number).name}")
    if number in _LIMIT_SIGNALS:
        return MediaError(RejectCode.DECODE_LIMIT, signal.Signals(number).name)
    return MediaError(RejectCode.DECODE_FAILED, f"the decoder ended with {exitcode}")


@contextmanager
def _output() -> Iterator[BinaryIO]:
    """A nameless file for the child to write to; sealed against shrinking, which would fault its reader."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as out:
            yield out
        return
    with os.fdopen(os.memfd_create("clipwarden", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b") as out:
        fcntl.fcntl(out, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        yield out


def _decoded(read: _Read, wanted: set[int], limits: MediaLimits, out: BinaryIO) -> Decoded:
    """Arrays over the output, copied when written to. Raises ValueError if account and output disagree."""
    indices = [index for index, *_ in read.frames]
    bad_shape = any(not (0 < h <= limits.max_side_px and 0 < w <= limits.max_side_px) for *_, h, w in read.frames)
    total = sum(read.sizes) + 2 * read.samples
    if bad_shape or indices != sorted(set(indices) & wanted) or total != os.fstat(out.fileno()).st_size:
        raise ValueError("the frames are not those that were planned")
    buffer = mmap.mmap(out.fileno(), total, access=mmap.ACCESS_COPY) if total else b""
    frames: list[NDArray[np.uint8]] = []
    offset = 0
    for size, (_, _, height, width) in zip(read.sizes, read.frames, strict=True):
        frames.append(np.frombuffer(buffer, np.uint8, size, offset).reshape(height, width, 3))
        offset += size
    return Decoded(
        tuple(frames),
        np.array(indices, np.int64),
        np.array([time for _, time, *_ in read.frames], np.float64),
        np.frombuffer(buffer, np.int16, read.samples, offset) if read.samples else np.zeros(0, np.int16),
    )
