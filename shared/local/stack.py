"""The whole system on one machine: servers, set-up, processes; what dies is restarted, all of it is stopped.

One thread owns every child (see `child`): it starts them, watches them, and ends only when they have stopped.
"""

import json
import os
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self

from celery import Celery
from kombu.exceptions import OperationalError

from clipwarden.shared.errors import ClipwardenError, ConfigError, Unavailable
from clipwarden.shared.local.child import Child, DirectoryLock, tail, until, write_private
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey, free_port
from clipwarden.shared.local.watch import Watched
from clipwarden.shared.processes import FLOWER, GATEWAY, PROCESSES, SETUP, Process
from clipwarden.shared.settings import PREFIX, Settings

TICK_S = 0.2
SETUP_TIMEOUT_S = 300.0
STOP_MARGIN_S = 15.0
HURRIED_S = 3.0
ANSWER_TIMEOUT_S = 1.0
READY_FILE = "ready.json"
PASSWORD_FILE = "flower-password"  # noqa: S105 - a name


class Stack:
    """The system with its state in one directory. Servers that the settings name are used, not started."""

    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        port: int | None = None,
        *,
        env: Mapping[str, str] | None = None,
        table: Sequence[Process] = PROCESSES,
        setup: Sequence[tuple[str, ...]] = SETUP,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`port` is the gateway's and must be free; without it the settings' port, or any if it is not.

        `env` goes to every process; `setup` names the commands that run before the processes of `table` start;
        `note` is told what happens, in sentences.
        """
        self.state_dir = state_dir.absolute()
        self.settings = settings
        self.api_url = ""
        self.flower_url = ""
        self.redis_url = settings.redis_url
        self.database_url = settings.database_url
        self.failure: ClipwardenError | None = None
        self._port = port
        self._flower_port = 0
        self._extra_env = dict(env or {})
        self._table = tuple(table)
        self._setup = tuple(setup)
        self._note = note
        self._lock = DirectoryLock(self.state_dir / "lock", f"another `clipwarden up` runs in {self.state_dir}")
        self._servers: list[Watched] = []
        self._children: list[Watched] = []
        self._stop_requests = 0  # a plain number: a signal handler may not wait for an event's lock
        self._launched = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def processes(self) -> dict[str, int]:
        """Process id by name, the embedded servers `postgres` and `valkey` too; not those that are down."""
        return {each.name: each.what.pid for each in [*self._servers, *self._children] if each.what.alive()}

    @property
    def told_to_stop(self) -> bool:
        return self._stop_requests > 0

    @property
    def logs(self) -> Path:
        """Directory with one `<name>.log` per process."""
        return self.state_dir / "logs"

    def start(self) -> None:
        """Start everything; return when it is launched. Raises ClipwardenError with the log in question."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.take()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()
        while not self._launched.wait(TICK_S) and not self._ended.is_set():
            pass
        self._raise_failure()

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        """Return when the gateway and every queue answer and `ready.json` is written, or raise Unavailable."""
        deadline = time.monotonic() + timeout_s
        while missing := self._missing():
            self._raise_failure()
            if self.told_to_stop:
                raise Unavailable("stopped before it was ready")
            time.sleep(TICK_S)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"not ready after {timeout_s:g} s: no answer from {', '.join(missing)}; see {self.logs}"
                )
        write_private(self.state_dir / READY_FILE, json.dumps({**self.facts(), "pid": os.getpid()}) + "\n")

    def facts(self) -> dict[str, str]:
        """Where the system answers: `api`, `redis`, `database`, `flower` if it runs (URLs); `state` (its directory)."""
        return {
            "api": self.api_url,
            **({"flower": self.flower_url} if self.flower_url else {}),
            "redis": self.redis_url,
            "database": self.database_url,
            "state": str(self.state_dir),
        }

    def ask_to_stop(self) -> None:
        """Begin to stop and return at once; asked a second time, it no longer waits for running tasks.

        May be called from a signal handler.
        """
        self._stop_requests += 1

    def wait_ended(self, timeout_s: float) -> bool:
        """Whether everything has stopped, after a request or a failure."""
        return self._ended.wait(timeout_s)

    def stop(self) -> None:
        """Stop everything: workers hand their tasks back, then the servers. Does nothing if stopped."""
        self._stop_requests = max(1, self._stop_requests)
        if self._thread is not None:
            self._thread.join()
        self._lock.free()

    def _supervise(self) -> None:
        try:
            self._launch()
            self._launched.set()
            while not self.told_to_stop:
                for watched in [*self._servers, *self._children]:
                    watched.look(time.monotonic(), self._note)
                time.sleep(TICK_S)
        except ClipwardenError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - a fault of this thread has to reach the caller's
            self.failure = Unavailable(f"the supervisor failed: {error!r}")
        finally:
            self._stop_all()
            self._ended.set()

    def _launch(self) -> None:
        if not self.database_url:
            self._note("starting PostgreSQL")
            self.database_url = self._serve("postgres", EmbeddedPostgres(self.state_dir))
        if not self.redis_url:
            self._note("starting Valkey")
            self.redis_url = self._serve("valkey", EmbeddedValkey(self.state_dir))
        self._choose_address()
        for words in self._setup:
            self._run_once(words)
        self._note(f"starting {len(self._table)} processes")
        for process in self._table:
            if self.told_to_stop:
                return
            watched = Watched(process.name, self._child(process))
            self._children.append(watched)
            watched.what.start()

    def _serve(self, name: str, server: EmbeddedPostgres | EmbeddedValkey) -> str:
        self._servers.append(Watched(name, server))
        server.start()
        return server.url

    def _choose_address(self) -> None:
        wanted = self.settings.port if self._port is None else self._port
        found = free_port(wanted, self.settings.host)
        if self._port and found != self._port:
            raise ConfigError(f"port {self._port} is taken: choose another --port, or none to get a free one")
        self._port = found
        self.api_url = _url(self.settings.host, found)
        if any(process.name == FLOWER for process in self._table):
            self._flower_port = free_port(self.settings.flower_port, self.settings.flower_host)
            self.flower_url = _url(self.settings.flower_host, self._flower_port)

    def _run_once(self, words: tuple[str, ...]) -> None:
        self._note(f"clipwarden {' '.join(words)}")
        child = self._child(Process("-".join(words), words))
        child.start()
        try:
            until(lambda: not child.alive() or self.told_to_stop, SETUP_TIMEOUT_S)
            if child.alive() and not self.told_to_stop:
                raise Unavailable(
                    f"clipwarden {' '.join(words)} took longer than {SETUP_TIMEOUT_S:g} s; see {child.log}"
                )
        finally:
            child.stop(patience=0.1)
        if child.returncode and not self.told_to_stop:
            raise Unavailable(f"clipwarden {' '.join(words)} failed; {child.log} ends with:\n{tail(child.log)}")

    def _child(self, process: Process) -> Child:
        return Child(
            [*command_line(), *process.words],
            record=self.state_dir / "run" / process.name,
            log=self.logs / f"{process.name}.log",
            steps=[(SIGTERM, self.settings.soft_shutdown_s + STOP_MARGIN_S)],
            env={**self._environment(), **self._extra_env, **self._environment_of(process)},
            cwd=self.state_dir,
        )

    def _environment_of(self, process: Process) -> dict[str, str]:
        """What one process alone is told: a port of its own for its metrics, and Flower its secret."""
        own = {}
        first = int(self._extra_env.get(f"{PREFIX}METRICS_PORT", self.settings.metrics_port))
        if first and process in self._table:
            own[f"{PREFIX}METRICS_PORT"] = str(first + self._table.index(process))
        if process.name == FLOWER:
            own[f"{PREFIX}FLOWER_PORT"] = str(self._flower_port)
            own[f"{PREFIX}FLOWER_PASSWORD"] = self.settings.flower_password or self._made_password()
        return own

    def _made_password(self) -> str:
        """A password for Flower that stays the same in this directory."""
        path = self.state_dir / PASSWORD_FILE
        if not path.exists():
            write_private(path, secrets.token_urlsafe(16) + "\n")
        return path.read_text(encoding="ascii").strip()

    def _environment(self) -> dict[str, str]:
        """Ours, plus every setting that was given to us, plus where things are."""
        threads = max(1, (os.cpu_count() or 1) // 2)  # several pools are busy at once
        return {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **_as_environment(self.settings),
            f"{PREFIX}STATE_DIR": str(self.state_dir),
            f"{PREFIX}BLOB_DIR": str((self.settings.blob_dir or self.state_dir / "blobs").absolute()),
            f"{PREFIX}BLOB_CACHE_DIR": str((self.settings.blob_cache_dir or self.state_dir / "blob-cache").absolute()),
            f"{PREFIX}DATABASE_URL": self.database_url,
            f"{PREFIX}REDIS_URL": self.redis_url,
            f"{PREFIX}PORT": str(self._port),
        }

    def _missing(self) -> list[str]:
        """Processes that do not answer yet. Workers are asked once the gateway does, for they are slower."""
        if any(process.name == GATEWAY for process in self._table) and not gateway_ready(self.api_url):
            return [GATEWAY]
        wanted = {process.queue.value for process in self._table if process.queue}
        return sorted(wanted - consumed_queues(self.redis_url)) if wanted else []

    def _raise_failure(self) -> None:
        if self.failure is not None:
            self.stop()
            raise self.failure

    def _stop_all(self) -> None:
        (self.state_dir / READY_FILE).unlink(missing_ok=True)
        children = [each.what for each in self._children if isinstance(each.what, Child)]
        for child in children:
            child.ask()
        until(
            lambda: self._stop_requests > 1 or not any(child.alive() for child in children),
            self.settings.soft_shutdown_s + STOP_MARGIN_S,
        )
        until(lambda: not any(child.alive() for child in children), HURRIED_S)
        for child in children:
            child.stop(patience=0)
        for server in reversed(self._servers):
            server.what.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _url(bound: str, port: int) -> str:
    """Where this machine reaches what is bound to an address."""
    host = "127.0.0.1" if bound in {"", "0.0.0.0", "::"} else bound  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def command_line() -> list[str]:
    """What starts `clipwarden` in this environment."""
    script = Path(sys.executable).with_name("clipwarden")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())"]


def gateway_ready(api_url: str) -> bool:
    """Whether the gateway says that it and what it needs are there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{api_url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def consumed_queues(redis_url: str) -> set[str]:
    """Names of the queues that some worker, on any machine, says it consumes."""
    app = Celery("clipwarden", broker=redis_url, set_as_current=False)
    try:
        replies = app.control.broadcast("active_queues", reply=True, timeout=ANSWER_TIMEOUT_S) or []
    except (OperationalError, OSError):
        return set()
    finally:
        app.close()
    return {queue["name"] for reply in replies for queues in reply.values() for queue in queues}


def _as_environment(settings: Settings) -> dict[str, str]:
    def text(value: object) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {f"{PREFIX}{name.upper()}": text(value) for name, value in given.items() if value is not None}
