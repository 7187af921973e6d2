"""The blob store in a directory, and the cache that stands before one in a bucket."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest

from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS, LocalBlobs, open_blobs
from clipwarden.shared.blobs.cache import IDLE_S, BlobCache
from clipwarden.shared.blobs.local import translated
from clipwarden.shared.errors import BlobGone, ConfigError, StorageSick, Unavailable
from clipwarden.shared.ids import new_id
from clipwarden.shared.settings import Settings, load_settings

NOBODY = 65534
FETCHER = """
import sys, time
from pathlib import Path
from clipwarden.shared.blobs.cache import BlobCache

directory, log, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def pieces():
    with log.open("a") as file:
        file.write("fetched\\n")
    yield b"a" * 50
    time.sleep(pause_s)
    yield b"b" * 50

with BlobCache(directory, 1000).holding("name", lambda: (100, pieces())) as path:
    assert path.read_bytes() == b"a" * 50 + b"b" * 50
"""


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    made = LocalBlobs(tmp_path / "blobs")
    made.set_up("one")
    return made


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", 100)


def put(blobs: LocalBlobs, content: bytes, key: str = "") -> str:
    with blobs.create(key) as writer:
        writer.write(content)
        return writer.commit()


def source(content: bytes, announced: int | None = None) -> tuple[int, Iterator[bytes]]:
    return len(content) if announced is None else announced, iter([content[:10], content[10:]])


def unreachable() -> tuple[int, Iterator[bytes]]:
    raise Unavailable("nobody answers")


def names(cache: BlobCache) -> list[str]:
    return sorted(path.name for path in cache.directory.iterdir() if not path.name.startswith("."))


def fill(cache: BlobCache, name: str, size: int) -> None:
    with cache.holding(name, lambda: source(b"x" * size)):
        pass


def age(cache: BlobCache, name: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(cache.directory / name, (then, then))


def fetcher(cache: BlobCache, log: Path, pause_s: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCHER, str(cache.directory), str(log), str(pause_s)])


def test_nothing_is_written_where_the_store_was(blobs: LocalBlobs, tmp_path: Path) -> None:
    blobs.root.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match="is no blob store"):
        blobs.create()
    assert not blobs.root.exists()


@contextmanager
def barred(folder: Path) -> Iterator[None]:
    """The system lets this process into the folder no more, not even as root."""
    was, mode = os.geteuid(), stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0)
    os.seteuid(was or NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
        folder.chmod(mode)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "the rest"])
def test_what_cannot_be_kept_is_not_said_to_be(blobs: LocalBlobs, tmp_path: Path, left: str) -> None:
    with blobs.create() as writer:
        writer.write(b"x")
        if left == "the rest":
            next((blobs.root / PARTIAL).iterdir()).unlink()
        else:
            blobs.root.rename(tmp_path / "away")
        if left == "an empty folder":
            blobs.root.mkdir()
        with pytest.raises(Unavailable, match="could not keep a blob"):
            writer.commit()
    assert not writer.committed
    assert blobs.root.exists() == (left != "nothing")
    assert not (blobs.root / UPLOADS).exists()


def test_a_folder_that_is_deleted_while_it_is_made_is_made_again(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, deleted = Path.mkdir, list[Path]()

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if self.name == "inner" and not deleted:
            self.parent.rmdir()
            deleted.append(self.parent)
        make(self, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert blobs.read(put(blobs, b"x", f"{EVIDENCE}/outer/inner/a.json")) == b"x"
    assert deleted == [blobs.root / EVIDENCE / "outer"]


def test_nothing_is_deleted_where_the_store_was(blobs: LocalBlobs, tmp_path: Path) -> None:
    key, away = put(blobs, b"x"), tmp_path / "away"
    blobs.root.rename(away)
    for act in (
        lambda: blobs.delete(key),
        lambda: blobs.delete_folder(UPLOADS),
        lambda: next(blobs.older_than(UPLOADS, 0)),
    ):
        with pytest.raises(Unavailable, match="is no blob store"):
            act()
    away.rename(blobs.root)
    assert list(blobs.keys()) == [key]


def test_a_store_that_the_system_refuses_is_sick(blobs: LocalBlobs) -> None:
    key = put(blobs, b"x")
    with barred(blobs.root):
        for act in (lambda: blobs.read(key), blobs.create, lambda: blobs.delete(key)):
            with pytest.raises(StorageSick, match="Permission denied"):
                act()
    assert blobs.read(key) == b"x"


@pytest.mark.parametrize("number", ["EACCES", "EIO", "ENOTCONN", "EROFS", "ESTALE", "ENAMETOOLONG"])
def test_a_sick_store_is_told_from_a_bad_name(number: str) -> None:
    with pytest.raises(Unavailable) as raised, translated("be read"):
        raise OSError(getattr(errno, number), "no")
    assert (raised.type is StorageSick) == (number != "ENAMETOOLONG")


def test_an_upload_is_invisible_until_it_is_committed(blobs: LocalBlobs) -> None:
    with blobs.create() as writer:
        writer.write(b"first ")
        writer.write(memoryview(b"second"))
        assert [key.split("/")[0] for key in blobs.keys()] == [PARTIAL]
        key = writer.commit()
    assert key.startswith(f"{UPLOADS}/")
    assert (list(blobs.keys()), writer.size) == ([key], 12)
    assert writer.sha256 == hashlib.sha256(b"first second").hexdigest()
    assert blobs.read(key) == b"first second"


def test_an_upload_given_up_leaves_nothing(blobs: LocalBlobs) -> None:
    with blobs.create() as writer:
        writer.write(b"x" * 100_000)
    assert list(blobs.keys()) == []


def test_nobody_else_may_read_what_people_sent(blobs: LocalBlobs) -> None:
    path = blobs.path(put(blobs, b"x"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(blobs.root.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_blob_that_is_not_there_is_told_from_a_store_that_is_not(blobs: LocalBlobs) -> None:
    with pytest.raises(BlobGone, match="there is no uploads/x"), blobs.local("uploads/x"):
        pass
    (blobs.root / PARTIAL).write_bytes(b"a file where a folder must be")
    with pytest.raises(Unavailable) as raised:
        blobs.create()
    assert raised.type is Unavailable


def test_no_key_leads_out_of_the_store(blobs: LocalBlobs) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        blobs.read("../secret")


def test_another_store_is_refused_by_its_id(blobs: LocalBlobs, tmp_path: Path) -> None:
    blobs.check("one")
    with pytest.raises(ConfigError, match=r"\(one, expected two\): mount the right volume"):
        blobs.check("two")
    with pytest.raises(ConfigError, match="no store id"):
        LocalBlobs(tmp_path / "empty").check("one")
    with pytest.raises(ConfigError, match="db upgrade"):
        blobs.check(None)


def test_what_is_deleted_is_gone_and_a_second_time_is_no_error(blobs: LocalBlobs) -> None:
    analysis_id = new_id()
    upload = put(blobs, b"x")
    for name in ("bundle.json", "visual"):
        put(blobs, b"x", f"{BUNDLES}/{analysis_id}/{name}")
    for _ in range(2):
        blobs.delete_bundle(analysis_id)
        assert list(blobs.keys()) == [upload]
    for _ in range(2):
        blobs.delete(upload)
        assert list(blobs.keys()) == []


def test_blobs_are_listed_by_age(blobs: LocalBlobs) -> None:
    old, fresh = put(blobs, b"x"), put(blobs, b"x")
    os.utime(blobs.path(old), (time.time() - 7200,) * 2)
    assert [*chain(*blobs.older_than(UPLOADS, 3600))] == [old]
    assert sorted(chain(*blobs.older_than(UPLOADS, 0))) == sorted([old, fresh])
    assert [*blobs.older_than(BUNDLES, 0)] == []


def test_age_is_told_by_the_clock_that_dates_files(blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    put(blobs, b"x")
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 7200)
    assert [*blobs.older_than(UPLOADS, 3600)] == [[]]


def test_what_is_listed_comes_in_pages_and_from_any_depth(blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipwarden.shared.blobs.local.PAGE", 2)
    for key in ("a/visual/1/x", "a/visual/1/y", "a/audio/2/x", "b/visual/3/d/x"):
        put(blobs, b"x", f"{EVIDENCE}/{key}")
    put(blobs, b"x", f"{EVIDENCE}/a-file")
    pages = list(blobs.older_than(EVIDENCE, 0, 3))
    assert [len(page) for page in pages] == [2, 1]
    assert sorted(chain(*pages)) == [f"{EVIDENCE}/{key}" for key in ("a/audio/2", "a/visual/1", "b/visual/3")]


@pytest.mark.parametrize("url", ["s3://", "s3://x", "http://clips", "s3://clips/../x y", "clips", "s3://Clips"])
def test_an_address_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="CLIPWARDEN_BLOB_URL"):
        load_settings(blob_url=url)


def test_the_settings_choose_the_store(tmp_path: Path) -> None:
    local = open_blobs(Settings(state_dir=tmp_path))
    assert isinstance(local, LocalBlobs)
    assert local.place == str(tmp_path / "blobs")
    bucket = open_blobs(Settings(state_dir=tmp_path, blob_url="s3://clips/moderation"))
    assert bucket.place == "s3://clips/moderation"


def test_a_file_is_fetched_once(cache: BlobCache) -> None:
    with cache.holding("a", lambda: source(b"0123456789abc")) as path:
        assert path.read_bytes() == b"0123456789abc"
    with cache.holding("a", unreachable) as path:
        assert path.read_bytes() == b"0123456789abc"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("announced", [12, 14])
def test_a_file_that_does_not_arrive_whole_is_not_kept(cache: BlobCache, announced: int) -> None:
    with (
        pytest.raises(BlobGone, match=f"13 of {announced} bytes"),
        cache.holding("a", lambda: source(b"0123456789abc", announced)),
    ):
        pass
    assert names(cache) == []


def test_a_fetch_that_fails_leaves_nothing(cache: BlobCache) -> None:
    def broken() -> Iterator[bytes]:
        yield b"0123456789"
        raise Unavailable("the line broke")

    with pytest.raises(Unavailable, match="the line broke"), cache.holding("a", lambda: (20, broken())):
        pass
    assert names(cache) == []


def test_the_longest_unused_makes_room(cache: BlobCache) -> None:
    for seconds, name in ((30, "a"), (20, "b"), (10, "c")):
        fill(cache, name, 30)
        age(cache, name, seconds)
    with cache.holding("a", unreachable):
        pass
    fill(cache, "d", 30)
    assert names(cache) == ["a", "c", "d"]


def test_what_is_in_use_stays_even_if_it_is_too_much(cache: BlobCache) -> None:
    with cache.holding("a", lambda: source(b"x" * 80)) as held:
        fill(cache, "b", 80)
        cache.drop("a")
        assert held.read_bytes() == b"x" * 80
    fill(cache, "c", 80)
    assert names(cache) == ["c"]


def test_a_file_larger_than_the_cache_is_fetched_all_the_same(cache: BlobCache) -> None:
    with cache.holding("a", lambda: source(b"x" * 500)) as path:
        assert path.stat().st_size == 500


def test_nothing_stays_that_nobody_used_for_an_hour(cache: BlobCache) -> None:
    fill(cache, "a", 1)
    fill(cache, "b", 1)
    age(cache, "a", IDLE_S + 60)
    cache.tidy()
    assert names(cache) == ["b"]


def test_two_processes_that_want_the_same_file_fetch_it_once(cache: BlobCache, tmp_path: Path) -> None:
    cache.directory.mkdir()
    log = tmp_path / "log"
    ends = [each.wait(30) for each in [fetcher(cache, log, 0.3), fetcher(cache, log, 0.3)]]
    assert (ends, log.read_text().count("fetched"), names(cache)) == ([0, 0], 1, ["name"])


def test_a_process_killed_while_it_fetches_leaves_no_file_and_holds_nobody_up(cache: BlobCache, tmp_path: Path) -> None:
    cache.directory.mkdir()
    killed = fetcher(cache, tmp_path / "log", 60)
    deadline = time.monotonic() + 20
    while not names(cache) and time.monotonic() < deadline:
        time.sleep(0.01)
    (draft,) = names(cache)
    cache.tidy()
    assert names(cache) == [draft], "it is still being written"
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    fill(cache, "name", 7)
    assert names(cache) == ["name"]
