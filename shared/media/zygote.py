"""The small process behind the fence: imports the decoder once, then forks one child per file.

Run as `python -m clipwarden.shared.media.zygote` with a SEQPACKET socket as standard input. Each message
carries three descriptors: the file, the output and a stream socket with the request as JSON, to which the
child answers as JSON. The zygote itself never touches the file. It ends when its parent's end of the socket
closes, and takes a running child along.
"""

import ctypes
import errno
import fcntl
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import av
import numpy as np

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.container import opened
from clipwarden.shared.media.decoded import SAMPLE_RATE_HZ
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.probing import probe_container
from clipwarden.shared.media.reading import read_container

READY = b"ready"
_PR_SET_NO_NEW_PRIVS = 38
_INPUT_FD, _OUTPUT_FD, _REPLY_FD, _LAST_FD = 3, 4, 5, 6
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
    """Import what PyAV imports late: a child cannot open a file, not even a module."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in {"av.__main__", "av.datasets"}:
            import_module(module.name)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
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
            reply.sendall(b"\n" + json.dumps({"exit": exitcode}).encode())


def _child(fds: list[int], keep: int) -> NoReturn:
    """One request in a process of its own; never returns into the zygote's loop."""
    code = 1
    try:
        _isolate(fds, keep)
        with socket.socket(fileno=_REPLY_FD) as reply:
            request = json.loads(reply.makefile("rb").read())
            limits = MediaLimits(**request["limits"])
            _confine(limits)
            reply.sendall(json.dumps(_answer(request, limits)).encode())
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
    os.closerange(_LAST_FD + 1, _MOST_FDS)


def _renounce_new_privileges() -> None:
    """Linux: no program that this process starts can gain rights, set-user-id or not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _confine(limits: MediaLimits) -> None:
    """Bound this process. No descriptor is free any more, so FFmpeg can open nothing else.

    This stops what a file can make a working decoder do. Code that took the decoder over could close a descriptor and
    open another file with this user's rights; it still has the limits, no rights to gain, and an empty environment.
    """
    _renounce_new_privileges()
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LAST_FD + 1, _LAST_FD + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.output_bytes, limits.output_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))  # SIGXCPU, then SIGKILL
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s)


def _answer(request: dict[str, Any], limits: MediaLimits) -> dict[str, Any]:
    """Do what was asked; whatever goes wrong in here was brought about by the file."""
    try:
        with (
            open(_INPUT_FD, "rb", closefd=False) as stream,
            opened(stream, request["size_bytes"], limits.max_pixels) as container,
        ):
            if request["do"] == "probe":
                return {"probe": probe_container(container, request["size_bytes"], limits)}
            with open(_OUTPUT_FD, "wb", closefd=False) as out:
                return {"read": read_container(container, request["frames"], request["audio_seconds"], limits, out)}
    except MediaError as error:
        return {"code": error.code, "detail": error.detail}
    except MemoryError:
        return {"code": RejectCode.DECODE_LIMIT, "detail": "memory"}
    except OSError as error:
        code = RejectCode.DECODE_LIMIT if error.errno == errno.EFBIG else RejectCode.DECODE_FAILED
        return {"code": code, "detail": str(error)}
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything on a hostile file
        return {"code": RejectCode.DECODE_FAILED, "detail": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
