"""Running a server as an ordinary user when we are root: PostgreSQL refuses to serve as root.

The user is `nobody`. Where its way to the files is barred (a private directory above them), no directory is
opened up: the process keeps, on Linux, the single right to read past directory permissions.
"""

import os
import pwd
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.local.child import libc

PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION = 0x20080522
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1  # containers seldom grant the narrower right


def is_root() -> bool:
    return os.geteuid() == 0


def nobody() -> tuple[int, int]:
    """User and group id of `nobody`."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def open_to_others(path: Path) -> bool:
    """Whether any user may pass every directory above this one, and read and enter it."""
    path = path.resolve()
    return path.stat().st_mode & 0o5 == 0o5 and all(parent.stat().st_mode & 0o1 for parent in path.parents)


def drop_to_nobody(*, pass_directories: bool) -> Callable[[], None]:
    """A hook for a forked child of root that makes it `nobody`, `pass_directories` keeping that one right.

    Raises ConfigError if the right is wanted and this system cannot give it.
    """
    user, group = nobody()
    capability = _pass_right() if pass_directories else None

    def drop() -> None:
        if capability is not None and libc is not None:
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        if capability is not None and libc is not None:
            mask = 1 << capability
            libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", mask, mask, mask, 0, 0, 0))
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)

    return drop


def _pass_right() -> int:
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        permitted = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:")), 16)
        for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
            if permitted >> capability & 1:
                return capability
    raise ConfigError(
        "PostgreSQL does not run as root, and the user `nobody` cannot reach the state directory: "
        "give one that others may pass (--state /var/lib/clipwarden), or run as an ordinary user"
    )


def stage(source: Path, target: Path) -> Path:
    """A copy of a program tree and its neighbour `<name>.libs` that `nobody` can read, made once."""
    if not target.is_dir():
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".stage-"))
        shutil.copytree(
            source,
            draft / source.name,
            ignore=shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__"),
        )
        libraries = source.with_name(f"{source.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        draft.replace(target)
    return target / source.name
