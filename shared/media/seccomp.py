"""The system calls that the fence's child keeps, as a seccomp filter; Linux on x86_64 and aarch64.

It is a list of what is allowed. A list of what is forbidden would have to name every way to a file or a process
(open_by_handle_at, pidfd_getfd, io_uring, the x32 numbers, whatever the next kernel adds) and to the limits (setitimer,
sigaction, prlimit); a decoder that has its input, its memory and its reply open needs about forty calls. The rest fails
with EPERM, and numbers newer than this list with ENOSYS, upon which a C library falls back to older calls.

Code that took the decoder over can compute within its limits, read the clip, write into the shared memory and the
reply, which the caller checks, and ask whether a path exists. It can map no new code. It opens, creates, renames and
runs nothing, makes no socket and no process, signals none, and does not lift its limits. What remains is the kernel's
own code behind the allowed calls, and what processors leak sideways. No library is used: those on PyPI wrap a
libseccomp that has to be installed, or are younger and larger than this file.
"""

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS, _NO_SLOWER_MEMORY = 1, 4  # the second: before Linux 5.16 a filter costs store bypassing, thus speed
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_FIRST_UNKNOWN = 435  # clone3; since 424 both architectures number alike

_AT_EMPTY_PATH = 0x1000
_CLONE_THREAD = 0x10000
_PROT_EXEC = 4
_PR_SET_NAME = 15
_DUPLICATE_AND_FLAGS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the kernel names a machine, its number of seccomp(2), and its column in the table of calls."""

    audit: int
    seccomp: int
    column: int


ARCHITECTURES = {"x86_64": Architecture(0xC000003E, 317, 0), "aarch64": Architecture(0xC00000B7, 277, 1)}

_CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, None), "lseek": (8, 62),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "writev": (20, 66), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "nanosleep": (35, 101), "getpid": (39, 172), "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210),
    "exit": (60, 93), "gettimeofday": (96, 169), "sigaltstack": (131, 132), "gettid": (186, 178), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "getcpu": (309, 168), "getrandom": (318, 278), "rseq": (334, 293),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Condition:
    """A call allowed by one of its arguments: if it equals a value, or with another `jump` has (or lacks) a bit."""

    numbers: tuple[int, int]
    argument: int
    values: tuple[int, ...]
    jump: int = _IF_EQUAL
    matches: bool = True


_CONDITIONS = (
    _Condition((9, 222), 2, (_PROT_EXEC,), _IF_ANY_BIT, matches=False),  # mmap
    _Condition((10, 226), 2, (_PROT_EXEC,), _IF_ANY_BIT, matches=False),  # mprotect
    _Condition((56, 220), 0, (_CLONE_THREAD,), _IF_ANY_BIT),  # clone
    _Condition((72, 25), 1, _DUPLICATE_AND_FLAGS),  # fcntl; its other commands can have signals sent
    _Condition((157, 167), 0, (_PR_SET_NAME,)),  # prctl
    _Condition((262, 79), 3, (_AT_EMPTY_PATH,)),  # newfstatat, which is how glibc asks about a descriptor
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> bool:
    """Keep this process, all its threads and those to come to the calls above, for good; whether that worked.

    It does not where the kernel has no seccomp filters or the machine is another.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None or sys.maxsize < 2**32:
        return False
    code = program(architecture)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filter_ = _Program(len(code) // 8, code)
    flags = ctypes.c_ulong(_ALL_THREADS | _NO_SLOWER_MEMORY)
    refused: int = libc.syscall(ctypes.c_long(architecture.seccomp), _SET_MODE_FILTER, flags, ctypes.byref(filter_))
    return refused == 0


def program(architecture: Architecture) -> bytes:
    """The filter in the kernel's classic BPF, eight bytes an instruction."""
    column = architecture.column
    code = [_step(_LOAD, _ARCHITECTURE_AT), *_unless(_IF_EQUAL, architecture.audit, _KILL), _step(_LOAD, _NUMBER_AT)]
    code += _when(_IF_AT_LEAST, _FIRST_UNKNOWN, _ERRNO | errno.ENOSYS)
    for numbers in _CALLS.values():
        if (number := numbers[column]) is not None:
            code += _when(_IF_EQUAL, number, _ALLOW)
    for condition in _CONDITIONS:
        checks = _checks(condition)
        code += [_step(_IF_EQUAL, condition.numbers[column], 0, len(checks)), *checks]
    return b"".join([*code, _step(_RETURN, _ERRNO | errno.EPERM)])


def _checks(condition: _Condition) -> list[bytes]:
    """What follows once a call with a condition is recognised; it decides."""
    met, unmet = _ALLOW, _ERRNO | errno.EPERM
    if not condition.matches:
        met, unmet = unmet, met
    code = [_step(_LOAD, _ARGUMENTS_AT + 8 * condition.argument)]  # the low half of the argument
    for value in condition.values:
        code += _when(condition.jump, value, met)
    return [*code, _step(_RETURN, unmet)]


def _when(jump: int, value: int, verdict: int) -> list[bytes]:
    return [_step(jump, value, 0, 1), _step(_RETURN, verdict)]


def _unless(jump: int, value: int, verdict: int) -> list[bytes]:
    return [_step(jump, value, 1, 0), _step(_RETURN, verdict)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
