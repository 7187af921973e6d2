"""The whole system where it can be broken: real servers and processes, to be killed, frozen, misled or doubled.

What dies is started again at once, as an operator's supervisor would, unless a drill wants it down.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.models.weights import file_digest
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.database import upgrade
from clipwarden.shared.local.child import Child, tail, until
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.stack import command_line, gateway_ready
from clipwarden.shared.local.valkey import EmbeddedValkey, free_port
from clipwarden.shared.processes import GATEWAY, PROCESSES, SWEEPER
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import PREFIX, Settings
from clipwarden.shared.store import Store
from tests.drills import audit
from tests.e2e.conftest import descendants

LEASE_S, SWEEP_S = 4.0, 1.0
SETTINGS: dict[str, Any] = {
    "lease_s": LEASE_S,
    "heartbeat_s": 1.0,
    "sweep_every_s": SWEEP_S,
    "resend_after_s": 3.0,
    "assess_soft_limit_s": 8,
    "assess_hard_limit_s": 10,
    "soft_shutdown_s": 3.0,
    "webhook_timeout_s": 2.0,
    "deadline_s": 150.0,
    "outbound_private": ("127.0.0.1/32",),
}
OBEDIENT = ("tiny_gate", "forensic_mlp", "cqcc_cnn", "speech_stats", "av_sync", "clip_adapter")
ORDERS = Path(__file__).with_name("orders")
DISK_BYTES = 48 * 1024 * 1024
READY_TIMEOUT_S = 120.0
PAUSE_S = 0.3


@dataclass
class Member:
    """A process of the system. `wanted`: it is started again when it dies; `excused`: a drill has it die."""

    name: str
    child: Child
    wanted: bool = True
    excused: bool = False
    started: float = field(default=0.0)
    started_at: float = field(default=0.0)

    @property
    def pids(self) -> list[int]:
        return descendants(self.child.pid)


class Yard:
    """Everything from the servers to the sweeper, its state in one directory, its blobs on a small disk if we may."""

    def __init__(self, state: Path, world_port: int) -> None:
        self.state = state
        self.postgres, self.valkey = EmbeddedPostgres(state), EmbeddedValkey(state)
        self.disk, self.has_own_disk = state / "disk", False
        self.orders = state / "orders.json"
        self.surprises: list[str] = []
        self.members: dict[str, Member] = {}
        self._fallen: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._world_port = world_port

    def open(self) -> None:
        self.postgres.start()
        self.valkey.start()
        self.disk.mkdir()
        self.has_own_disk = _mounted(self.disk)
        blobs = self.disk / "blobs"
        self.settings = Settings(
            **SETTINGS,
            database_url=self.postgres.url,
            redis_url=self.valkey.url,
            state_dir=self.state,
            blob_dir=blobs,
            weights=write_weights(self.state / "weights"),
            port=free_port(),
            outbound_ports=(self._world_port,),
        )
        upgrade(self.settings)
        self.engine = create_engine(self.postgres.url, pool_pre_ping=True)
        audit.install(self.engine)
        self.blobs = LocalBlobs(blobs)
        self.store = Store(self.postgres.url)
        self.redis = Redis.from_url(self.valkey.url)
        self.run("pipeline", "publish")
        self._keeper.start()
        for process in PROCESSES:
            if process.queue or process.name in {GATEWAY, SWEEPER}:
                self.add(process.name, process.words)
        url = f"http://127.0.0.1:{self.settings.port}"
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        assert until(lambda: gateway_ready(url), READY_TIMEOUT_S), self.log(GATEWAY)

    def close(self) -> None:
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        for member in self.members.values():
            member.child.ask()
        for member in self.members.values():
            member.child.stop()
        self.http.close()
        self.store.close()
        self.engine.dispose()
        self.redis.close()
        self.valkey.stop()
        self.postgres.stop()
        if self.has_own_disk:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)

    def run(self, *words: str, **env: str) -> None:
        """Run a command of ours to its end."""
        subprocess.run([*command_line(), *words], env=self.environment(env), check=True, capture_output=True)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        told = {PREFIX + k.upper(): ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in given.items()}
        path = os.pathsep.join(filter(None, [str(ORDERS), os.environ.get("PYTHONPATH")]))
        ours = {"PYTHONPATH": path, "DRILL_ORDERS": str(self.orders), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **told, **ours, **more}

    def add(self, name: str, words: Sequence[str], **env: str) -> Member:
        """Have one more process run."""
        child = Child(
            [*command_line(), *words],
            record=self.state / "run" / name,
            log=self.state / "logs" / f"{name}.log",
            steps=[(signal.SIGTERM, 15.0)],
            env=self.environment(env),
            cwd=self.state,
        )
        with self._lock:
            self.members[name] = Member(name, child)
        return self.members[name]

    @contextmanager
    def joined(self, name: str, *words: str, **env: str) -> Iterator[Member]:
        """Have one more worker run for a while; it is at work when the context begins."""
        before = self.said(name, "worker ready")
        member = self.add(name, words, **env)
        assert until(lambda: self.said(name, "worker ready") > before, READY_TIMEOUT_S), self.log(name)
        try:
            yield member
        finally:
            self.remove(name)

    def remove(self, name: str) -> None:
        """Stop a process for good, softly."""
        with self._lock:
            member = self.members.pop(name)
        member.child.stop()

    def _keep(self) -> None:
        """Start what is to run and does not. One thread starts them all, for a child ends with its thread."""
        while not self._over.wait(0.05):
            while self._fallen:
                self._fallen[0].start()
                self._fallen.pop(0)
            with self._lock:
                for member in self.members.values():
                    if member.child.alive() or not member.wanted or time.monotonic() < member.started + PAUSE_S:
                        continue
                    if member.started and not member.excused:
                        self.surprises.append(f"{member.name} ended by itself: {member.child.returncode}")
                    member.excused, member.started, member.started_at = False, time.monotonic(), time.time()
                    member.child.start()

    def kill(self, *names: str) -> None:
        """kill -9 of processes, pool children and all."""
        for name in names:
            member = self.members[name]
            member.excused = True
            for pid in member.pids:
                send_signal(pid, signal.SIGKILL)

    def pool_children(self, name: str) -> list[int]:
        """The processes that do a worker's tasks."""
        return [pid for pid in self.members[name].pids[1:] if b"spawn_main" in _command(pid)]

    @contextmanager
    def replaced(self, name: str) -> Iterator[None]:
        """Ask a process to stop, as a deployment does; its successor starts once it is gone."""
        member = self.members[name]
        before, member.excused = member.child.pid, True
        member.child.ask()
        try:
            yield
        finally:
            assert until(lambda: member.child.pid != before and member.child.alive(), READY_TIMEOUT_S), self.log(name)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No room for anything more where the blobs are."""
        ballast = self.disk / "ballast"
        try:
            for piece in (1024 * 1024, 512):
                with suppress(OSError), ballast.open("ab", buffering=0) as file:
                    while file.write(bytes(piece)):
                        pass
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def postgres_refusing(self) -> Iterator[None]:
        """Postgres is there, ends every connection and lets nobody in."""
        gate = create_engine(self.postgres.url.replace("/postgres?", "/template1?"), isolation_level="AUTOCOMMIT")
        with gate.connect() as c:
            c.execute(text("ALTER DATABASE postgres ALLOW_CONNECTIONS false"))
            c.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'"))
            try:
                yield
            finally:
                c.execute(text("ALTER DATABASE postgres ALLOW_CONNECTIONS true"))
        gate.dispose()

    @contextmanager
    def down(self, name: str) -> Iterator[None]:
        """Keep a process from being started again once it is dead."""
        self.members[name].wanted = False
        try:
            yield
        finally:
            self.members[name].wanted = True

    @contextmanager
    def leaving(self, *names: str) -> Iterator[None]:
        """Processes that may leave by themselves for a while."""
        stop = threading.Event()

        def excuse() -> None:
            while not stop.wait(0.02):
                for name in names:
                    self.members[name].excused = True

        thread = threading.Thread(target=excuse)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop processes from running for a while."""
        pids = [pid for name in names for pid in self.members[name].pids]
        for pid in pids:
            send_signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                send_signal(pid, signal.SIGCONT)

    def kill_server(self, server: EmbeddedPostgres | EmbeddedValkey) -> None:
        """kill -9 of a server, which stays down."""
        send_signal(server.pid, signal.SIGKILL)
        assert until(lambda: not server.alive(), 10)

    def start_server(self, server: EmbeddedPostgres | EmbeddedValkey) -> None:
        """Start a server that a thread killed which will end before it."""
        self._fallen.append(server)
        assert until(lambda: not self._fallen, READY_TIMEOUT_S)

    def order(self, **orders: str) -> None:
        """Tell the detectors what to do (`visual__any="hold"`), instead of what they were told before."""
        told = {name.replace("__", "."): what for name, what in orders.items()}
        draft = self.orders.with_suffix(".draft")
        draft.write_text(json.dumps(told), "utf-8")
        draft.replace(self.orders)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def until(self, statement: str, timeout_s: float = 60, **values: Any) -> None:
        """Wait until the statement returns a row."""
        assert until(lambda: bool(self.rows(statement, **values)), timeout_s, 0.05), f"never: {statement} {values}"

    def ready(self) -> bool:
        """Whether every worker that is to run has its models loaded."""
        queues = {queue.value for queue in Queue} - {Queue.NOTIFY}
        return all(
            member.child.alive() and self.ready_at(name) > member.started_at
            for name, member in self.members.items()
            if member.wanted and name in queues
        )

    def ready_at(self, name: str) -> float:
        """When a worker last said that its models are loaded, in seconds since 1970; 0 if it says no such thing."""
        lines = (self.state / "logs" / f"{name}.log").read_text("utf-8", "replace").splitlines()
        said = [line for line in lines if '"event": "worker ready"' in line]
        return datetime.fromisoformat(json.loads(said[-1])["timestamp"]).timestamp() if said else 0.0

    def log(self, name: str) -> str:
        return tail(self.state / "logs" / f"{name}.log", 40)

    def said(self, name: str, what: str) -> int:
        """How often a process has logged this."""
        path = self.state / "logs" / f"{name}.log"
        return path.read_bytes().count(what.encode()) if path.exists() else 0


def write_weights(folder: Path, other: str = "") -> Path:
    """A weights.toml for the obedient detectors; the weights of one may be others than in the first pipeline."""
    folder.mkdir(exist_ok=True)
    tables = []
    for name in OBEDIENT:
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"of": name, "other": name == other}), "utf-8")
        tables.append(f'[{name}]\nfile = "{path.name}"\nsha256 = "{file_digest(path)}"\nruntime = "torch"\n')
    manifest = folder / "weights.toml"
    manifest.write_text("\n".join(tables), "utf-8")
    return manifest


def _mounted(folder: Path) -> bool:
    """Whether a small disk of its own could be put there; only root may."""
    mount = shutil.which("mount")
    words = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "drill", str(folder)]
    return bool(mount) and os.geteuid() == 0 and not subprocess.run(words, check=False, capture_output=True).returncode


def send_signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # children may die with their parent before their turn
        os.kill(pid, number)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
