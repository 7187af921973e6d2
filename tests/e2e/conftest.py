"""The whole system, once a session: embedded servers, the gateway, every worker, the sweeper, all real processes."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text

from clipwarden.api.client import Client
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.local.stack import Stack
from clipwarden.shared.processes import PROCESSES, WATCHER
from clipwarden.shared.settings import Settings
from tests.listeners import Listener, listening

QUICK_RECOVERY = {
    "CLIPWARDEN_LEASE_S": "4",
    "CLIPWARDEN_HEARTBEAT_S": "1",
    "CLIPWARDEN_SWEEP_EVERY_S": "1",
    "CLIPWARDEN_RESEND_AFTER_S": "3",
    "CLIPWARDEN_MAX_UPLOAD_BYTES": str(64 * 1024 * 1024),
    "CLIPWARDEN_SOFT_SHUTDOWN_S": "2",
}


def descendants(pid: int) -> list[int]:
    """The process and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


@dataclass
class System:
    """The running system as its user and its operator see it, and the means to break it."""

    stack: Stack
    client: Client
    engine: Engine
    redis: Redis
    blobs: LocalBlobs
    submitted: list[str] = field(default_factory=list)

    def submit(self, path: Path) -> str:
        analysis = self.client.submit(path, reuse=False)
        self.submitted.append(str(analysis.id))
        return str(analysis.id)

    def wait(self, analysis_id: str, timeout_s: float = 120) -> dict[str, Any]:
        """The final analysis as JSON."""
        return self.client.wait(analysis_id, timeout_s).model_dump(mode="json")

    def analyse(self, path: Path) -> dict[str, Any]:
        return self.wait(self.submit(path))

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def until(self, statement: str, timeout_s: float = 60, **values: Any) -> None:
        """Wait until the statement returns a row."""
        deadline = time.monotonic() + timeout_s
        while not self.rows(statement, **values):
            assert time.monotonic() < deadline, f"never true: {statement} {values}"
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """kill -9 of a worker, pool child and all."""
        for pid in descendants(self.stack.processes[name]):
            with suppress(ProcessLookupError):  # children may die with the parent before their turn
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop a worker's processes from running for a while."""
        pids = descendants(self.stack.processes[name])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="session")
def world() -> Iterator[Listener]:
    """A server that the system may fetch files from and make callbacks to."""
    with listening() as listener:
        yield listener


@pytest.fixture(scope="session")
def free_port() -> int:
    """A port of nobody's, that callbacks may go to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def collector() -> Iterator[Listener]:
    """Where the system sends its traces."""
    with listening() as listener:
        yield listener


@pytest.fixture(scope="session")
def metrics_port() -> int:
    """The first of as many free ports as there are processes, elsewhere for each process that tests."""
    mine = 20 * (os.getpid() % 400)
    for first in range(21_000 + mine, 31_000 + mine, 20):
        with suppress(OSError), ExitStack() as taken:
            for n in range(len(PROCESSES) + 1):
                taken.enter_context(socket.create_server(("127.0.0.1", first + n)))
            return first
    pytest.fail("no free ports")


@pytest.fixture(scope="session")
def system(
    tmp_path_factory: pytest.TempPathFactory, world: Listener, free_port: int, collector: Listener, metrics_port: int
) -> Iterator[System]:
    state = tmp_path_factory.mktemp("state")
    ports = f"{world.port},{free_port}"
    allowed = {"CLIPWARDEN_OUTBOUND_PRIVATE": "127.0.0.1/32", "CLIPWARDEN_OUTBOUND_PORTS": ports}
    told = {
        "CLIPWARDEN_METRICS_PORT": str(metrics_port),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    stack = Stack(
        state,
        Settings(state_dir=state, port=0, flower_port=0),
        env={**QUICK_RECOVERY, **allowed, **told},
        table=(*PROCESSES, WATCHER),
    )
    stack.start()
    try:
        stack.wait_ready(240)
        client, engine = Client(stack.api_url), create_engine(stack.database_url)
        yield System(stack, client, engine, Redis.from_url(stack.redis_url), LocalBlobs(state / "blobs"))
        client.close()
        engine.dispose()
    finally:
        stack.stop()


@pytest.fixture
def at_once() -> Callable[[list[Callable[[], Any]]], list[Any]]:
    """Run calls in threads of their own, all at the same time; results in order, the first error raised."""

    def run(calls: list[Callable[[], Any]]) -> list[Any]:
        results: list[Any] = [None] * len(calls)
        gate = threading.Barrier(len(calls))

        def one(i: int) -> None:
            gate.wait()
            try:
                results[i] = calls[i]()
            except Exception as error:
                results[i] = error

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for r in results:
            if isinstance(r, Exception):
                raise r
        return results

    return run
