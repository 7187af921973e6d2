"""The small process behind the fence: imports the decoder once, then forks one child per file.

Run as `python -m clipwarden.shared.media.zygote` with a SEQPACKET socket as standard input. Each message carries
three descriptors: the file, the memory for what is read of it, and a stream socket that carries JSON lines both ways:

    caller: size and limits       child: the probe, or a code
    caller: what to read          child: a line per picture (the caller answers each with one byte), then the sound's

A caller that closes after the probe wants no more. The zygote itself never touches the file. It ends when its parent's
end of the socket closes, and takes a running child along.
"""

import ctypes
import fcntl
import json
import mmap
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import SoundPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media import seccomp
from clipwarden.shared.media.container import opened
from clipwarden.shared.media.index import PacketIndex
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.probing import probe_container
from clipwarden.shared.media.reading import read_container
from clipwarden.shared.media.ring import ChildRing, Layout, Line

READY = b"ready"
_PR_SET_NO_NEW_PRIVS = 38
_INPUT_FD, _MEMORY_FD, _REPLY_FD, _ALIVE_FD = 3, 4, 5, 6
_LAST_FD = 7  # the mapped memory keeps a duplicate of its own
_FREE_FDS = 64
_MOST_FDS = 1024


def main() -> None:
    """Serve requests until the parent closes its end."""
    av.logging.set_level(None)
    _warm()
    control = socket.socket(fileno=0)
    control.send(READY)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 3)
        if not message or len(fds) != 3 or not _serve(control, fds):
            return


def _warm() -> None:
    """Import what PyAV and NumPy import late: a child cannot open a file, not even a module."""
    import_module("numpy.ma")
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in {"av.__main__", "av.datasets"}:
            import_module(module.name)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 48_000
    for piece in resampler.resample(frame):
        piece.to_ndarray()
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    picture.reformat(width=8, height=8, format="yuv420p", interpolation="AREA").reformat(format="rgb24").to_ndarray()


def _serve(control: socket.socket, fds: list[int]) -> bool:
    """Fork a child for one request, wait, report how it ended. False if the parent left meanwhile."""
    alive_r, alive_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(fds, keep=alive_w)
    os.close(alive_w)
    # The pipe ends with the child; the control socket is readable before that only if the parent is gone.
    readable, _, _ = select.select([alive_r, control.fileno()], [], [])
    if alive_r not in readable:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with socket.socket(fileno=fds[2]) as reply:
        _report(reply, os.waitstatus_to_exitcode(status))
    for fd in (alive_r, fds[0], fds[1]):
        os.close(fd)
    return alive_r in readable


def _report(reply: socket.socket, exitcode: int) -> None:
    if exitcode != 0:
        with suppress(OSError):  # the parent may have given up on this file
            reply.sendall(b"\n" + json.dumps({"exit": exitcode}).encode() + b"\n")


def _child(fds: list[int], keep: int) -> NoReturn:
    """One file in a process of its own; never returns into the zygote's loop."""
    code = 1
    try:
        _isolate(fds, keep)
        with socket.socket(fileno=_REPLY_FD) as reply, reply.makefile("rb") as words:
            request = json.loads(words.readline())
            limits = MediaLimits(**request["limits"])
            memory = mmap.mmap(_MEMORY_FD, limits.shared_bytes)
            _confine(limits)
            for answer in _answers(request["size_bytes"], limits, Line(memory, reply, words)):
                reply.sendall(json.dumps(answer).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _isolate(fds: list[int], keep: int) -> None:
    """Keep the request's three descriptors and the one whose closing tells the zygote of the end, nothing else."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FREE_FDS) for fd in (*fds, keep)]
    for target, fd in enumerate(high, start=_INPUT_FD):
        os.dup2(fd, target)
    null = os.open(os.devnull, os.O_RDWR)
    for target in range(_INPUT_FD):
        os.dup2(null, target)
    os.closerange(_ALIVE_FD + 1, _MOST_FDS)


def _allocated_bytes() -> int:
    """What this process has of private memory so far; where that cannot be told, nothing."""
    with suppress(OSError), Path("/proc/self/status").open("rb") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmData:")), 0)
    return 0


def _renounce_new_privileges() -> None:
    """Linux: no program that this process starts can gain rights, set-user-id or not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _confine(limits: MediaLimits) -> None:
    """Bound this process. No descriptor is free any more, so FFmpeg can open nothing else.

    This stops what a file can make a working decoder do. What code that took the decoder over can still do is said in
    `seccomp`; where there is no such filter, it could close a descriptor and open a file with this user's rights.
    """
    _renounce_new_privileges()
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LAST_FD + 1, _LAST_FD + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))  # SIGXCPU, then SIGKILL
    memory_bytes = _allocated_bytes() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s)
    seccomp.confine()


def _answers(size_bytes: int, limits: MediaLimits, line: Line) -> Iterator[dict[str, Any]]:
    """The probe, then what was read; or a code: whatever goes wrong in here was brought about by the file."""
    try:
        index = PacketIndex()
        with open(_INPUT_FD, "rb", closefd=False) as stream:
            with opened(stream, size_bytes, limits.max_pixels) as container:
                yield {"probe": probe_container(container, size_bytes, limits, index)}
            if request := line.words.readline():
                layout, wanted = _wanted(json.loads(request))
                spans = layout.spans(line.memory)
                stream.seek(0)
                with opened(stream, size_bytes, limits.max_pixels) as container:
                    read_container(container, index, wanted, spans, limits, ChildRing(line, layout))
                yield {"filled": {rate: [span.filled for span in rows] for rate, rows in spans.items()}}
    except EOFError:
        return
    except MediaError as error:
        yield {"code": error.code, "detail": error.detail}
    except MemoryError:
        yield {"code": RejectCode.DECODE_LIMIT, "detail": "memory"}
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything on a hostile file
        yield {"code": RejectCode.DECODE_FAILED, "detail": f"{type(error).__name__}: {error}"}


def _wanted(request: dict[str, Any]) -> tuple[Layout, list[int]]:
    sounds = tuple(SoundPlan.model_validate(plan) for plan in request["sounds"])
    return Layout(request["slots"], request["slot_bytes"], sounds), request["frames"]


if __name__ == "__main__":
    main()
