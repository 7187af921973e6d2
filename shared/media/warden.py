"""The zygote and its children, seen from the caller: starting, asking, and what an end says about the file."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import Any

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError, WorkerFault

_START_S = 60.0
_GRACE_S = 5.0
_MOST_REPLY_BYTES = 64 * 1024
_LONGEST_DETAIL = 300
_NOTICED_S = 0.5  # how long after its last word the end of the zygote may take to be seen
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LIMIT_SIGNALS = frozenset({signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL, signal.SIGXFSZ})


class Stuck(Exception):  # noqa: N818 - named after what happened
    """Nothing was heard of a child for longer than it may take."""


class Zygote:
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

    @contextmanager
    def serve(self, source: int, memory: int) -> Iterator["Child"]:
        """A child for one file; it has ended, one way or the other, when the context is left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, ours.makefile("rb") as words:
            with theirs:
                try:
                    socket.send_fds(self._control, [b"?"], [source, memory, theirs.fileno()])
                except OSError as error:
                    self._kill()
                    raise WorkerFault(f"the media decoder is gone: {error}") from error
            ours.settimeout(self._timeout_s)
            child = Child(ours, words, self._ended)
            try:
                yield child
                child.leave()
            except MediaError:
                child.leave()
                raise
            except Stuck as error:
                self._kill()
                raise MediaError(RejectCode.DECODE_LIMIT, "nothing was heard of the decoder") from error
            except BaseException:  # a time limit or Ctrl-C of the caller, or its own fault: the child must not go on
                self._kill()
                raise

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


class Child:
    """The line to a child: JSON lines both ways; the zygote's word on how the child ended comes last."""

    def __init__(self, line: socket.socket, words: BufferedReader, zygote_ended: Callable[[], bool]) -> None:
        self._line, self._words = line, words
        self._zygote_ended = zygote_ended

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the first line of the answer."""
        self.tell(json.dumps(request).encode() + b"\n")
        return self.hear()

    def tell(self, message: bytes) -> None:
        """Send bytes; a child that has ended says why when it is heard."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._line.sendall(message)

    def hear(self) -> dict[str, Any]:
        """The next line. Raises MediaError if the child refused the file or died of it, WorkerFault."""
        try:
            text = self._words.readline(_MOST_REPLY_BYTES)
            reply = _parsed(text)
            while reply is None and (text := self._words.readline(_MOST_REPLY_BYTES)):
                reply = _parsed(text)
        except TimeoutError as error:
            raise Stuck from error
        except ConnectionResetError:
            text, reply = b"", None
        if reply is None and not text and self._zygote_ended():
            raise WorkerFault("the media decoder was ended from outside")
        if reply is None or "exit" in reply:
            raise _died(reply["exit"] if reply else 1)
        if "code" in reply:
            raise _refused(reply["code"], reply.get("detail"))
        return reply

    def leave(self) -> None:
        """Tell the child that nothing more is wanted, and wait until it has ended."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while self._words.read(1 << 16):
                pass


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


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
