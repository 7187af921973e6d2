"""Makes `.venv` ready, and does nothing if it is: the first step of every `make` target.

Runs on whatever `python3` there is, with the standard library alone. What is missing is said before anything
is downloaded. A set-up that was cut short leaves no stamp and is done again from the start.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "clipwarden-stamp"
LOCK = ROOT / "requirements.lock"
PYTHON = (3, 11)
TORCH = "torch==2.13.0"
EXTRAS = "api,worker,export,s3,train,voices,ops,trace,local,dev"
DISK_NEEDED_GB = 5
GLIBC_NEEDED = (2, 28)
PROMISE = """Setting up Clipwarden in {venv}
  download  about 0.6 GB (about 3 GB where pip picks the CUDA build of torch)
  on disk   about 2.5 GB (about 8 GB with CUDA)
  time      about 2 minutes on a fast line, 10 on a slow one; once, until the dependencies change
"""


class Refusal(Exception):  # noqa: N818 - a sentence for the user, not a fault of the program
    """The machine cannot be set up as it is; the message says what to do."""


def main() -> int:
    """Exit status 0 when `.venv` is ready, 1 with a sentence when it cannot be, 130 when interrupted."""
    try:
        use_right_python()
        if is_ready():
            return 0
        refuse_early()
        with one_at_a_time():
            if not is_ready():
                set_up()
    except Refusal as refusal:
        say(f"set-up: {refusal}")
        return 1
    except KeyboardInterrupt:
        say("\nset-up: interrupted; the next run starts again from the beginning")
        return 130
    return 0


def use_right_python() -> None:
    """Go on under Python 3.11 if this is another one. Raises Refusal if there is none."""
    if sys.version_info[:2] == PYTHON:
        return
    found = find_python(os.environ.get("PATH", ""))
    if found is None:
        raise Refusal(
            f"Clipwarden needs Python 3.11, this is {platform.python_version()} "
            "and PATH has no python3.11. "
            "Debian or Ubuntu: apt-get install python3.11 python3.11-venv; macOS: brew install python@3.11; "
            "anywhere: pyenv install 3.11"
        )
    os.execv(found, [found, *sys.argv])  # noqa: S606 - the same script, under the Python it needs


def find_python(path: str) -> str | None:
    """A python3.11 of PATH that runs: version managers leave launchers that do not."""
    found = shutil.which("python3.11", path=path)
    if found is None:
        return None
    asked = [found, "-c", "import sys; print(sys.version_info[:2])"]
    answer = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return found if answer.stdout.decode().strip() == str(PYTHON) else None


def is_ready() -> bool:
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp() and (VENV / "bin" / "python").exists()


def stamp() -> str:
    """What the environment was made from: the lock, what the project declares, the Python and the place."""
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {
        "lock": LOCK.read_text(encoding="utf-8"),
        "project": declared["project"],
        "build": declared["build-system"],
        "packages": declared["tool"]["setuptools"],
        "python": platform.python_version(),
        "place": str(ROOT),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest() + "\n"


def refuse_early() -> None:
    """Raise Refusal for everything that is known to fail later."""
    refuse_platform(sys.platform, platform.machine(), platform.libc_ver())
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise Refusal("this Python has no venv module. Debian or Ubuntu: apt-get install python3.11-venv")
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < DISK_NEEDED_GB:
        raise Refusal(f"{ROOT} has {free_gb:.1f} GB free, {DISK_NEEDED_GB} GB are needed")


def refuse_platform(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Raise Refusal where the compiled packages have no build."""
    fit = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",)}
    if machine not in fit.get(system, ()):
        raise Refusal(
            f"no builds of torch and the embedded servers for {system} on {machine}. "
            "Use Linux on x86_64 or aarch64, or macOS on Apple silicon; on Windows, WSL 2; or docker compose"
        )
    if system == "linux":
        name, version = libc
        if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC_NEEDED:
            raise Refusal(
                f"glibc 2.28 or newer is needed, this system has {name or 'another C library'} {version}. "
                "Use Debian 10, Ubuntu 20.04, RHEL 8 or newer, or docker compose"
            )


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for another set-up of this checkout; the system frees the lock however a set-up ends."""
    import fcntl  # not on every platform that is told so above

    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("set-up: another one is running here, waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_up() -> None:
    """Make the environment anew. Raises Refusal with pip's own words above it."""
    say(PROMISE.format(venv=VENV))
    if VENV.exists():
        shutil.rmtree(VENV)
    step("making the environment", [sys.executable, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-input"]
    if not sys.stderr.isatty():
        pip.append("--quiet")
    # torch first and alone: a large download that fails is then told apart from the rest
    step("installing torch", [*pip, "-c", str(LOCK), TORCH])
    step("installing the rest", [*pip, "-c", str(LOCK), "-e", f"{ROOT}[{EXTRAS}]"])
    step("trying it", [str(VENV / "bin" / "clipwarden"), "--version"])
    STAMP.write_text(stamp(), encoding="utf-8")
    say("Set-up done\n")


def step(what: str, command: list[str]) -> None:
    say(f"· {what}")
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False, cwd="/").returncode:
        raise Refusal(f"{what} failed, see above. Check the network (and pip's configuration), then run it again")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
