import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clipwarden.shared.media import seccomp
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
X32 = 0x40000000
CLONE_VM_AND_SIGHAND, CLONE_THREAD = 0x900, 0x10000
# By number on x86_64 and on aarch64, as linux/unistd.h has them; None where the call does not exist.
FORBIDDEN = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "open_by_handle_at": (304, 265),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "accept4": (288, 242),
    "sendmsg": (46, 211), "recvmsg": (47, 212), "execve": (59, 221), "execveat": (322, 281), "fork": (57, None),
    "vfork": (58, None), "clone3": (435, 435), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat2": (316, 276), "mkdirat": (258, 34), "mknodat": (259, 33),
    "linkat": (265, 37), "symlinkat": (266, 36), "fchmodat": (268, 53), "truncate": (76, 45), "mount": (165, 40),
    "umount2": (166, 39), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "userfaultfd": (323, 282), "memfd_create": (319, 279),
    "perf_event_open": (298, 241), "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273),
    "setitimer": (38, 103), "rt_sigaction": (13, 134), "prlimit64": (302, 261), "setrlimit": (160, 164),
    "shmget": (29, 194), "ioctl": (16, 29), "seccomp": (317, 277), "statx": (332, 291), "sysinfo": (99, 179),
}  # fmt: skip
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
needs_seccomp = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in MACHINES, reason="a filter of Linux on two machines"
)


def verdict(program: bytes, number: int, audit: int, *arguments: int) -> int:
    """What a kernel would do: classic BPF over struct seccomp_data, as its documentation describes it."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false


def forked(task: Callable[[], Any]) -> Any:
    """What the task returns in a forked process, or the name of the error it raises."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = task()
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        except BaseException as error:
            answer = repr(error)
        os.write(theirs, json.dumps(answer).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer)


def confined(task: Callable[[], Any]) -> Any:
    """As `forked`, behind the filter."""
    return forked(lambda: task() if seccomp.confine() else "no filter")


def called(number: int, *arguments: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    return "done" if libc.syscall(number, *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_no_call_reaches_a_file_a_process_or_a_limit(machine: str, column: int) -> None:
    program = seccomp.program(seccomp.ARCHITECTURES[machine])
    numbers = {call: both[column] for call, both in FORBIDDEN.items() if both[column] is not None}
    found = {call: verdict(program, number or 0, MACHINES[machine]) for call, number in numbers.items()}
    assert {v for v in found.values() if v & 0xFFFF0000 != 0x50000} == set(), found
    assert {v & 0xFFFF for v in found.values()} == {errno.EPERM, errno.ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machines_numbers_end_the_process(machine: str) -> None:
    program = seccomp.program(seccomp.ARCHITECTURES[machine])
    for audit in (0x40000003, *(set(MACHINES.values()) - {MACHINES[machine]})):
        assert verdict(program, 0, audit) == KILLED


def test_x32_numbers_are_no_way_round() -> None:
    program = seccomp.program(seccomp.ARCHITECTURES["x86_64"])
    assert all(verdict(program, X32 | number, MACHINES["x86_64"]) != ALLOWED for number in range(600))


@pytest.mark.parametrize(("machine", "clone", "mmap_"), [("x86_64", 56, 9), ("aarch64", 220, 222)])
def test_threads_and_plain_memory_are_allowed_processes_and_new_code_are_not(
    machine: str, clone: int, mmap_: int
) -> None:
    def allows(number: int, *arguments: int) -> bool:
        return (
            verdict(seccomp.program(seccomp.ARCHITECTURES[machine]), number, MACHINES[machine], *arguments) == ALLOWED
        )

    assert allows(clone, CLONE_VM_AND_SIGHAND | CLONE_THREAD)
    assert not allows(clone, signal.SIGCHLD)
    assert not allows(clone, CLONE_VM_AND_SIGHAND | signal.SIGCHLD)
    assert allows(mmap_, 0, 4096, mmap.PROT_READ | mmap.PROT_WRITE)
    assert not allows(mmap_, 0, 4096, mmap.PROT_READ | mmap.PROT_EXEC)


@needs_seccomp
@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Path("/etc/hostname").read_bytes(),
        lambda: Path("/tmp/never").write_bytes(b""),
        lambda: list(Path("/").iterdir()),
        lambda: Path("/tmp/never").unlink(),
        lambda: Path("/tmp/never").rename("/tmp/ever"),
        lambda: Path("/etc/hostname").stat(),
        lambda: os.memfd_create("x"),
        socket.socket,
        socket.socketpair,
        os.fork,
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.kill(os.getppid(), 0),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN),
        lambda: signal.setitimer(signal.ITIMER_REAL, 0),
        lambda: os.setuid(65534),
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    ],
)
def test_python_is_refused(attempt: Callable[[], Any]) -> None:
    assert confined(attempt) == "EPERM"


@needs_seccomp
def test_calls_newer_than_the_list_are_said_not_to_exist() -> None:
    assert confined(lambda: [called(435, 0, 0), called(437, 0, 0), called(425, 1, 0)]) == ["ENOSYS", "ENOSYS", "EPERM"]


@needs_seccomp
def test_the_filter_binds_threads_that_ran_before_it() -> None:
    go, found = threading.Event(), list[str]()

    def disobey() -> None:
        go.wait()
        try:
            found.append(Path("/etc/hostname").read_text())
        except OSError as error:
            found.append(errno.errorcode[error.errno or 0])

    thread = threading.Thread(target=disobey)

    def confine_late() -> list[str]:
        thread.start()
        assert seccomp.confine()
        go.set()
        thread.join()
        return found

    assert forked(confine_late) == ["EPERM"]


@needs_seccomp
def test_a_confined_process_computes_sleeps_and_starts_threads() -> None:
    def work() -> list[float]:
        sums: list[float] = []
        threads = [threading.Thread(target=lambda: sums.append(float(np.ones(1 << 20).sum()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.001)
        return sums

    assert confined(work) == [1 << 20] * 4


@needs_seccomp
def test_a_second_filter_is_refused_and_said_to_be() -> None:
    assert confined(seccomp.confine) is False


@needs_seccomp
def test_where_the_kernel_has_no_filters_the_fence_stands_without(wav: Path) -> None:
    def probe() -> list[Any]:
        deny_filters()
        with Fence(MediaLimits()) as fence:
            return [seccomp.confine(), fence.probe(wav).kind]

    assert forked(probe) == [False, "audio"]


def deny_filters() -> None:
    """As a kernel that was built without them answers."""
    number, no_such_call = seccomp.ARCHITECTURES[platform.machine()].seccomp, 0x50000 | errno.ENOSYS
    steps = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, no_such_call), (0x06, 0, 0, ALLOWED))
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    program = struct.pack("@HP", len(steps), ctypes.addressof(kept := ctypes.create_string_buffer(code)))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    assert libc.prctl(22, 2, program, 0, 0) == 0
    del kept


def test_an_unknown_machine_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert confined(lambda: None) == "no filter"


def decoded(files: list[bytes]) -> list[list[int]]:
    """Checksum of every frame of each file, decoded with four threads."""
    sums: list[list[int]] = []
    for content in files:
        with av.open(BytesIO(content)) as container:
            for part in container.streams.video:
                part.thread_type, part.thread_count = "AUTO", 4
            sums.append([zlib.crc32(frame.to_ndarray().tobytes()) for frame in container.decode()])
    return sums


@needs_seccomp
def test_decoding_with_threads_goes_on_as_before(tmp_path: Path) -> None:
    made = [
        *(media.write_clip(tmp_path / f"x{s}", media.scenery(12), media.speech(0.5)) for s in sorted(media.CODECS)),
        *(
            media.write_sound(tmp_path / f"x{suffix}", media.speech(0.5))
            for suffix in (".wav", ".flac", ".mp3", ".ogg")
        ),
        *(media.write_still(tmp_path / f"y{s}", next(media.scenery(1))) for s in (".jpg", ".png", ".webp", ".bmp")),
    ]
    files = [path.read_bytes() for path in made]
    plain = decoded(files)
    assert sum(len(sums) for sums in plain) > 4 * 12
    assert confined(lambda: decoded(files)) == plain
