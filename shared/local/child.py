"""Child processes that leave nothing behind: logged, watched, stopped in steps, found again after a crash.

On Linux a child is told to stop when the *thread* that started it ends, so whoever starts one keeps its
thread until the child has stopped. Where the system offers no such signal, the file that records the child
lets the next start end it.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from clipwarden.shared.errors import ConfigError, Unavailable

LOG_LIMIT_BYTES = 16 * 1024 * 1024
LEFTOVER_WAIT_S = 5.0
PR_SET_PDEATHSIG = 1
Step = tuple[signal.Signals, float]
"""A signal and the seconds given to it before the next step."""

libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child:
    """One child process; `prepare` runs in it before the program does (to give up rights, for example)."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        record: Path,
        log: Path,
        steps: Sequence[Step],
        env: Mapping[str, str] | None = None,
        cwd: Path | str = "/",
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.record = record
        self.log = log
        self.steps = list(steps)
        self._env = env
        self._cwd = cwd
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id. Raises Unavailable before the first start."""
        if self._process is None:
            raise Unavailable(f"{self.argv[0]} has not been started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, ending one that a crashed parent left behind. Raises ConfigError if it cannot run."""
        if self.alive():
            return
        if self._process is not None:
            kill_group(self._process.pid)
        end_leftover(self.record, self.steps)
        with open_log(self.log) as log:
            try:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._cwd,
                    env=None if self._env is None else dict(self._env),
                    start_new_session=True,
                    preexec_fn=self._bind(os.getpid()),  # noqa: PLW1509 - system calls only
                )
            except OSError as error:
                raise ConfigError(f"{self.argv[0]} could not be started: {error}") from error
        write_private(self.record, f"{self._process.pid} {started_at(self._process.pid)}\n")

    def _bind(self, parent: int) -> Callable[[], None]:
        def bind() -> None:
            if self._prepare is not None:
                self._prepare()
            if libc is not None:  # last: a change of user clears it
                libc.prctl(PR_SET_PDEATHSIG, int(self.steps[0][0]), 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)

        return bind

    def ask(self) -> None:
        """Send the first, softest signal and return at once."""
        if self.alive():
            self._signal(self.steps[0][0])

    def stop(self, patience: float = 1.0) -> None:
        """Walk through the steps until it has ended, then kill its group; `patience` scales the waits."""
        if self._process is None:
            return
        for number, wait_s in self.steps:
            if not self.alive():
                break
            self._signal(number)
            self.wait(wait_s * patience)
        kill_group(self._process.pid)
        self._process.wait()
        self.record.unlink(missing_ok=True)

    def wait(self, timeout_s: float) -> bool:
        """Whether the process ended within the time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class DirectoryLock:
    """One owner per directory; the system frees it when the owner dies, however it dies."""

    def __init__(self, path: Path, held: str) -> None:
        self.path = path
        self._held = held
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take it, or raise ConfigError with the sentence given at construction if it is held elsewhere."""
        if self._descriptor is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(self._held) from error
        self._descriptor = descriptor

    def free(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def started_at(pid: int) -> str:
    """When this process began, as a word that no later owner of the id shares; empty if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        if sys.platform == "linux":
            return ""
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return "-".join(shown.stdout.split())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return "" if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def end_leftover(record: Path, steps: Sequence[Step]) -> None:
    """End the process that a crashed parent recorded, if it is still the same one; forget the record."""
    try:
        pid_text, _, began = record.read_text(encoding="ascii").strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        record.unlink(missing_ok=True)
        return
    for number, wait_s in [*steps, (signal.SIGKILL, 5.0)]:
        if not began or started_at(pid) != began:
            break
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until(lambda: started_at(pid) != began, min(wait_s, LEFTOVER_WAIT_S))
    record.unlink(missing_ok=True)


def kill_group(pid: int) -> None:
    """Kill what a process that we started left running of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def open_log(path: Path) -> BinaryIO:
    """The log, to append to; one that grew past the limit is kept once under `.1` and begun anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
        path.touch(mode=0o600)
    return path.open("ab")


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log; empty if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 64 * 1024))
        return "\n".join(log.read().decode("utf-8", errors="replace").splitlines()[-lines:])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def until(done: Callable[[], bool], timeout_s: float, pause_s: float = 0.02) -> bool:
    """Whether the condition came true within the time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
