"""The embedded servers are real, private, and keep what was written through restarts and crashes."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import redis
import sqlalchemy as sa
from celery import Celery

from clipwarden.shared.errors import ConfigError
from clipwarden.shared.local.child import until
from clipwarden.shared.local.postgres import EmbeddedPostgres, find_postgres
from clipwarden.shared.local.rights import is_root, nobody, open_to_others, stage
from clipwarden.shared.local.valkey import EmbeddedValkey

Server = EmbeddedPostgres | EmbeddedValkey
SERVERS = [EmbeddedPostgres, EmbeddedValkey]
STARTER = """
import sys, time
from pathlib import Path
from clipwarden.shared.local.postgres import EmbeddedPostgres
from clipwarden.shared.local.valkey import EmbeddedValkey
server = {"EmbeddedPostgres": EmbeddedPostgres, "EmbeddedValkey": EmbeddedValkey}[sys.argv[1]](Path(sys.argv[2]))
server.start()
print(server.pid, server.url, flush=True)
time.sleep(60)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user may reach, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="clipwarden test "))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def ask(url: str, statement: str) -> object:
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def keep(server: Server) -> None:
    if isinstance(server, EmbeddedPostgres):
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS n")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 42)
            client.execute_command("WAITAOF", 1, 0, 5000)


def kept(server: Server) -> int:
    if isinstance(server, EmbeddedPostgres):
        return cast("int", ask(server.url, "SELECT n FROM kept"))
    with redis.Redis.from_url(server.url) as client:
        return int(cast("bytes", client.get("kept")))


@pytest.mark.parametrize("kind", SERVERS)
def test_data_survive_a_stop_and_a_start_in_the_same_directory(kind: Callable[[Path], Server], tmp_path):
    with kind(tmp_path) as server:
        keep(server)
    assert not server.alive()
    with kind(tmp_path) as server:
        assert kept(server) == 42


@pytest.mark.parametrize("kind", SERVERS)
def test_a_killed_server_comes_back_at_the_same_url_with_its_data(kind: Callable[[Path], Server], tmp_path):
    with kind(tmp_path) as server:
        keep(server)
        url, first = server.url, server.pid
        os.kill(first, signal.SIGKILL)
        assert until(lambda: not server.alive(), 5)
        server.start()
        assert (server.url, server.pid != first) == (url, True)
        assert kept(server) == 42


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_whose_parent_was_killed_leaves_nothing_in_the_way(kind: Callable[[Path], Server], tmp_path):
    name = cast("type", kind).__name__
    parent = subprocess.Popen([sys.executable, "-c", STARTER, name, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    first = int(parent.stdout.readline().split()[0])
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with kind(tmp_path) as server:
        keep(server)
        assert server.pid != first
        assert kept(server) == 42


@pytest.mark.parametrize("kind", SERVERS)
def test_a_directory_in_use_is_refused_and_its_server_left_alone(kind: Callable[[Path], Server], tmp_path):
    with kind(tmp_path) as server:
        with pytest.raises(ConfigError, match="in use by another process"):
            kind(tmp_path).start()
        assert server.alive()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_stopped_server_can_be_started_again(kind: Callable[[Path], Server], tmp_path):
    server = kind(tmp_path)
    server.start()
    keep(server)
    server.stop()
    server.stop()
    server.start()
    assert kept(server) == 42
    server.stop()


def test_postgres_has_no_network_door_and_a_private_socket(tmp_path):
    with EmbeddedPostgres(tmp_path) as server:
        assert ask(server.url, "SHOW listen_addresses") == ""
        directory = Path(cast("str", ask(server.url, "SHOW unix_socket_directories")))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_postgres_works_where_the_path_is_too_long_for_a_socket(tmp_path):
    deep = tmp_path / ("a long name with spaces & signs " * 4)
    with EmbeddedPostgres(deep) as server:
        directory = Path(cast("str", ask(server.url, "SHOW unix_socket_directories")))
        assert not directory.is_relative_to(tmp_path)
        assert ask(server.url, "SELECT 1") == 1
    assert not directory.exists()


def test_postgres_takes_a_pid_file_of_another_program_for_stale(tmp_path):
    with EmbeddedPostgres(tmp_path) as server:
        lines = (server.data / "postmaster.pid").read_text()
        owner = (server.data / "postmaster.pid").stat().st_uid
    stranger = subprocess.Popen(["sleep", "60"], user=owner if is_root() else None)
    try:
        (server.data / "postmaster.pid").write_text(lines.replace(lines.split()[0], str(stranger.pid), 1))
        os.chown(server.data / "postmaster.pid", owner, -1)
        with EmbeddedPostgres(tmp_path) as server:
            assert ask(server.url, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_postgres_makes_its_data_again_after_a_set_up_cut_short(tmp_path):
    draft = tmp_path / "postgres" / "data.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as server:
        assert ask(server.url, "SELECT 1") == 1


def test_data_of_another_postgres_version_are_refused_by_name(tmp_path):
    with EmbeddedPostgres(tmp_path) as server:
        version = server.data / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(ConfigError, match="written by PostgreSQL 9"):
        EmbeddedPostgres(tmp_path).start()


@pytest.mark.skipif(not is_root(), reason="only root has to become somebody else")
def test_root_serves_as_nobody_and_opens_no_directory(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with EmbeddedPostgres(private / "state") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == nobody()[0]
        assert ask(server.url, "SELECT 1") == 1
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.skipif(not is_root(), reason="only root has to become somebody else")
def test_root_gives_up_every_right_where_others_may_pass(open_directory):
    with EmbeddedPostgres(open_directory / "state") as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert ask(server.url, "SELECT 1") == 1


def test_a_staged_copy_of_the_programs_runs_for_everyone(open_directory):
    programs = find_postgres()
    package = programs.parents[1]
    copy = stage(package, open_directory / "programs") / programs.relative_to(package)
    assert open_to_others(copy)
    shown = subprocess.run(
        [copy / "postgres", "--version"],
        capture_output=True,
        user=nobody()[0] if is_root() else None,
        check=True,
        cwd="/",
    )
    assert b"PostgreSQL" in shown.stdout
    assert subprocess.run([copy / "psql", "--version"], capture_output=True, check=True).returncode == 0


def test_valkey_asks_for_a_password_that_only_its_owner_can_read(tmp_path):
    with EmbeddedValkey(tmp_path) as server:
        _, _, place = server.url.rpartition("@")
        with redis.Redis.from_url(f"redis://{place}") as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        assert server.url.split(":")[2].split("@")[0] not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert stat.S_IMODE((tmp_path / "valkey" / "valkey.conf").stat().st_mode) == 0o600


def test_valkey_takes_another_port_if_its_own_was_taken_meanwhile(tmp_path):
    with EmbeddedValkey(tmp_path) as server:
        keep(server)
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), EmbeddedValkey(tmp_path) as server:
        assert f":{port}/" not in server.url
        assert kept(server) == 42


def test_one_url_serves_celery_as_broker_and_for_results(tmp_path):
    with EmbeddedValkey(tmp_path) as server:
        app = Celery("probe", broker=server.url, backend=server.url, set_as_current=False)
        sent = app.send_task("nobody.answers", queue="probe")
        with redis.Redis.from_url(server.url) as client:
            assert client.llen("probe") == 1
        assert sent.state == "PENDING"
        app.close()
        app.backend.client.close()
