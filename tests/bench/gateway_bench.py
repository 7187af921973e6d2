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
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

import httpx

from clipwarden.api.access import KEY_CACHE_S, Scope, digest_of
from clipwarden.api.keys import new_secret
from clipwarden.models.pipeline import local_manifest, pipeline_id
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Branch
from clipwarden.shared.database import tie_blob_store, upgrade_schema
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.store import NewKey, Store
from tests.analyses import assess, found, ingest, verdict
from tests.bench.figures import Bench, Figure, figure

MEBIBYTE: Final = 1024 * 1024
CLIP: Final = os.urandom(2 * MEBIBYTE)
BOUNDARY: Final = b"--" + b"c1ipwarden" * 3
ROUNDS: Final = 9
UPLOADS, READS = 60, 1000
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

    def cpu_ns(self) -> int:
        """Of all its threads, those that have ended too: the clock that clock_getcpuclockid(3) names."""
        return time.clock_gettime_ns(~self.pid << 3 | 2)

    def memory_bytes(self, what: str) -> int:
        """`VmRSS` is what it has, `VmHWM` the most that it had."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{what}:"))


@dataclass(frozen=True)
class Pair:
    """The gateway and its rivals, and two analyses in their database, of which one is done with all branches."""

    gateway: Server
    rivals: Server
    store: Store
    analysis_id: str
    done_id: str


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
        stack.callback(store.close)
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
        queued, done = (opened(gateway, content) for content in (b"x", b"y"))
        examine(store, LocalBlobs(directory / "blobs"), UUID(done))
        yield Pair(gateway, rivals, store, queued, done)


def opened(gateway: Server, content: bytes) -> str:
    """A new analysis."""
    url = f"http://127.0.0.1:{gateway.port}/v1/analyses"
    reply = httpx.post(url, files={"file": ("a.mp4", content)}, trust_env=False)
    return str(reply.raise_for_status().json()["id"])


def examine(store: Store, blobs: LocalBlobs, analysis_id: UUID) -> None:
    """Bring an analysis to its verdict through all branches."""
    ingest(store, analysis_id, tuple(Branch))
    for branch in Branch:
        assess(store, blobs, analysis_id, found(branch))
    assert store.fuse(analysis_id, lambda *_: verdict())


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


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    said = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def upload(path: str, number: int, **headers: str) -> bytes:
    """A form with two megabytes that no other has."""
    part = BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    body = part + number.to_bytes(8, "big") + CLIP[8:] + b"\r\n" + BOUNDARY + b"--\r\n"
    return request("POST", path, body, Content_Type=f"multipart/form-data; boundary={BOUNDARY[2:].decode()}", **headers)


def keyed_upload(secret: str, number: int) -> bytes:
    """The same with an API key, to be sent again without being examined twice."""
    return upload("/v1/analyses", number, X_API_Key=secret, Idempotency_Key=str(number))


def made_key(store: Store) -> str:
    """The secret of a new key; from then on the gateway asks everybody for one."""
    secret = new_secret()
    store.create_key(NewKey("bench", "bench", digest_of(secret), [Scope.SUBMIT]))
    time.sleep(KEY_CACHE_S)
    return secret


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


def upload_cpu_ns(server: Server, make: Callable[[], bytes]) -> float:
    """CPU of the server for one upload."""
    before = server.cpu_ns()
    asyncio.run(asked(server.port, 4, UPLOADS, make, 202))
    return (server.cpu_ns() - before) / UPLOADS


def beside(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """The medians of ours, and of its ratio to theirs in the same round; the first round warms up."""
    pairs = [(ours(), theirs()) for _ in range(ROUNDS + 1)][1:]
    return median(mine for mine, _ in pairs), median(mine / other for mine, other in pairs)


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

        def read(analysis_id: str) -> tuple[float, float]:
            ours, theirs = f"/v1/analyses/{analysis_id}", f"/rows/{analysis_id}"
            return beside(lambda: rate(pair.gateway.port, ours), lambda: rate(pair.rivals.port, theirs))

        def accept(make: Callable[[int], bytes]) -> float:
            return beside(
                lambda: upload_cpu_ns(pair.gateway, lambda: make(next(numbers))),
                lambda: upload_cpu_ns(pair.rivals, lambda: upload("/upload", next(numbers))),
            )[1]

        reads, queued = read(pair.analysis_id)
        done = read(pair.done_id)[1]
        cost = accept(partial(upload, "/v1/analyses"))
        yield Figure("accepting 2 MB, CPU / streaming it to disk", cost, "ratio", limit=2.5)
        yield Figure("status reads / one indexed SELECT, rate", queued, "ratio", "higher", limit=0.6)
        yield Figure("status reads once done / one indexed SELECT, rate", done, "ratio", "higher")
        grown = growth_bytes(pair.gateway)
        yield Figure("gateway memory, growth while 1 GB streams", grown / MEBIBYTE, "MiB", limit=32)
        took = asyncio.run(crowded_s(pair, numbers))
        yield Figure(f"accepting 2 MB, p99 of {CROWD} at once, {STREAMS} streams open", quantiles(took, n=100)[-1], "s")
        yield Figure("status reads", reads, "1/s", "higher")
        keyed = accept(partial(keyed_upload, made_key(pair.store)))
        yield Figure("accepting 2 MB with both keys, CPU / streaming it to disk", keyed, "ratio")
