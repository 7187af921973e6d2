"""What the gateway costs beside handlers that do the least: CPU of an upload, rate of reads, memory, latency.

Gateway and rivals are processes of their own on the same machine, before the same Postgres, with the same server and
the same connection pool, and take turns. Each is asked by plain sockets, so that asking costs little.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from clipwarden.models.pipeline import local_manifest, pipeline_id
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.database import tie_blob_store, upgrade_schema
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.store import Store
from tests.bench.figures import Bench, Figure, figure

MEBIBYTE: Final = 1024 * 1024
CLIP: Final = os.urandom(2 * MEBIBYTE)
BOUNDARY: Final = b"--" + b"c1ipwarden" * 3
ROUNDS: Final = 5
UPLOADS, READS = 40, 1500
"""Requests in one turn."""
SIDE_BY_SIDE: Final = 16
CROWD, STREAMS, CROWD_UPLOADS = 50, 500, 500
LARGE_BYTES: Final = 1024 * MEBIBYTE
SERVE: Final = "from clipwarden.shared.cli import main; raise SystemExit(main(['serve']))"


@dataclass(frozen=True)
class Server:
    """A server process."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self, what: str) -> int:
        """`VmRSS` is what it has, `VmHWM` the most that it had."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{what}:"))


@dataclass(frozen=True)
class Pair:
    """The gateway and its rivals, and an analysis in their database."""

    gateway: Server
    rivals: Server
    analysis_id: str


@contextmanager
def serving(directory: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        valkey = stack.enter_context(EmbeddedValkey(directory))
        upgrade_schema(postgres.url)
        store = Store(postgres.url)
        tie_blob_store(store, LocalBlobs(directory / "blobs"))
        manifest = local_manifest()
        store.publish(pipeline_id(manifest), manifest)
        store.close()
        ports = free_ports(2)
        settings = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "STATE_DIR": str(directory),
            "BLOB_DIR": str(directory / "blobs"),
            "PORT": str(ports[0]),
            "MAX_UNFINISHED": "1000000",
        }
        environment = os.environ | {f"CLIPWARDEN_{name}": value for name, value in settings.items()}
        (directory / "rival").mkdir()
        told = [str(ports[1]), postgres.url, str(directory / "rival")]
        gateway = stack.enter_context(process(["-c", SERVE], ports[0], environment))
        rivals = stack.enter_context(process(["-m", "tests.bench.gateway_rivals", *told], ports[1], environment))
        reply = httpx.post(
            f"http://127.0.0.1:{gateway.port}/v1/analyses", files={"file": ("a.mp4", b"x")}, trust_env=False
        )
        yield Pair(gateway, rivals, reply.raise_for_status().json()["id"])


@contextmanager
def process(arguments: list[str], port: int, environment: dict[str, str]) -> Iterator[Server]:
    """A server that runs while the context lasts."""
    log = subprocess.DEVNULL  # a line for each request, as in operation
    child = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert child.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        yield Server(child.pid, port)
    finally:
        child.terminate()
        child.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(number: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(server.getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
    return ports


def request(method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return (head + (f"Content-Type: {kind}\r\n" if kind else "") + "\r\n").encode() + body


def upload(path: str, number: int) -> bytes:
    """A form with two megabytes that no other has."""
    part = BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    body = part + number.to_bytes(8, "big") + CLIP[8:] + b"\r\n" + BOUNDARY + b"--\r\n"
    return request("POST", path, body, f"multipart/form-data; boundary={BOUNDARY[2:].decode()}")


class Line:
    """One connection, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def status(self, asked: bytes) -> int:
        """The status of the answer, which is read to its end."""
        self.writer.write(asked)
        await self.writer.drain()
        return await self.answer()

    async def answer(self) -> int:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length: " in head:
            await self._reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        return int(head.split()[1])


@asynccontextmanager
async def line(port: int) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def asked(port: int, lines: int, number: int, make: Callable[[], bytes], good: int) -> list[float]:
    """Ask so often over so many lines; the seconds that each answer took."""
    left, took = iter(range(number)), []

    async def ask() -> None:
        async with line(port) as mine:
            for _ in left:
                content = make()
                started = time.perf_counter()
                status = await mine.status(content)
                took.append(time.perf_counter() - started)
                assert status == good, status

    await asyncio.gather(*(ask() for _ in range(lines)))
    return took


def rate(port: int, path: str) -> float:
    """Reads a second."""
    content = request("GET", path)
    started = time.perf_counter()
    asyncio.run(asked(port, SIDE_BY_SIDE, READS, lambda: content, 200))
    return READS / (time.perf_counter() - started)


def upload_cpu_s(server: Server, path: str, numbers: Iterator[int]) -> float:
    """CPU of the server for one upload."""
    before = server.cpu_s()
    asyncio.run(asked(server.port, 4, UPLOADS, lambda: upload(path, next(numbers)), 202))
    return (server.cpu_s() - before) / UPLOADS


def growth_bytes(server: Server) -> int:
    """How much more memory than before the server had while a large file streamed through it."""
    before = server.memory_bytes("VmRSS")

    async def send() -> int:
        async with line(server.port) as mine:
            head = f"PUT /v1/uploads/large HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
            mine.writer.write(head.encode())
            for _ in range(LARGE_BYTES // len(CLIP)):
                mine.writer.write(CLIP)
                await mine.writer.drain()
            return await mine.answer()

    assert asyncio.run(send()) == 201
    return max(server.memory_bytes("VmHWM") - before, 0)


async def crowded_s(pair: Pair, numbers: Iterator[int]) -> list[float]:
    """How long uploads take that come side by side while many watch an analysis."""
    watching = request("GET", f"/v1/analyses/{pair.analysis_id}/events")
    streams = [await asyncio.open_connection("127.0.0.1", pair.gateway.port) for _ in range(STREAMS)]
    for reader, writer in streams:
        writer.write(watching)
        assert b" 200 " in await reader.readuntil(b"\r\n")
    try:
        return await asked(pair.gateway.port, CROWD, CROWD_UPLOADS, lambda: upload("/v1/analyses", next(numbers)), 202)
    finally:
        for _, writer in streams:
            writer.close()


@figure
def gateway(_: Bench) -> Iterator[Figure]:
    if not sys.platform.startswith("linux"):  # memory and CPU of another process are read from /proc
        return
    with TemporaryDirectory(prefix="clipwarden-bench-") as folder, serving(Path(folder)) as pair:
        numbers = count()
        ours, theirs = f"/v1/analyses/{pair.analysis_id}", f"/rows/{pair.analysis_id}"
        rates = [(rate(pair.gateway.port, ours), rate(pair.rivals.port, theirs)) for _ in range(ROUNDS + 1)][1:]
        costs = [
            (upload_cpu_s(pair.gateway, "/v1/analyses", numbers), upload_cpu_s(pair.rivals, "/upload", numbers))
            for _ in range(ROUNDS + 1)
        ][1:]
        cost, bare = (min(column) for column in zip(*costs, strict=True))
        reads, selects = (max(column) for column in zip(*rates, strict=True))
        yield Figure("accepting 2 MB, CPU / streaming it to disk", cost / bare, "ratio", limit=2.5)
        yield Figure("status reads / one indexed SELECT, rate", reads / selects, "ratio", "higher", limit=0.6)
        grown = growth_bytes(pair.gateway)
        yield Figure("gateway memory, growth while 1 GB streams", grown / MEBIBYTE, "MiB", limit=32)
        took = asyncio.run(crowded_s(pair, numbers))
        yield Figure(f"accepting 2 MB, p99 of {CROWD} at once, {STREAMS} streams open", quantiles(took, n=100)[-1], "s")
        yield Figure("status reads", reads, "1/s", "higher")
