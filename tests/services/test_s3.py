"""The blob store in a bucket, against a real server that speaks S3."""

import hashlib
import http.server
import mmap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest

from clipwarden.api.gateway import Gateway
from clipwarden.models.pipeline import local_manifest, pipeline_id
from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS, BlobStore, open_blobs
from clipwarden.shared.blobs.s3 import PART_BYTES
from clipwarden.shared.bundle import BundleFacts, read_manifest, read_part, write_bundle
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.contracts import Branch, MediaKind, MediaProbe, SamplingPlan, Stage, StageStatus
from clipwarden.shared.database import tie_blob_store
from clipwarden.shared.errors import BlobGone, ConfigError, StorageFull, Unavailable
from clipwarden.shared.ids import new_id
from clipwarden.shared.local.doctor import check_blobs
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.workers import sweep
from clipwarden.workers.branch import assess_branch
from clipwarden.workers.ingest import ingest
from clipwarden.workers.process import WorkerProcess
from tests.s3_fixtures import BUCKET, S3Server
from tests.services.conftest import Serve

BLOCK = bytes(range(256)) * 4096  # one mebibyte
LARGE = 2 * PART_BYTES // len(BLOCK) + 1  # blocks of an upload in three parts


@pytest.fixture
def blobs(bucket_url: str, tmp_path: Path) -> BlobStore:
    return open_blobs(Settings(blob_url=bucket_url, state_dir=tmp_path))


@pytest.fixture
def bucket_settings(gateway_settings: Settings, store: Store, bucket_url: str) -> Settings:
    """A set-up installation whose blobs are in the bucket."""
    made = gateway_settings.model_copy(update={"blob_url": bucket_url, "max_upload_bytes": 1 << 30})
    tie_blob_store(store, open_blobs(made), new_blob_store=True)
    return made


def put(blobs: BlobStore, content: bytes, key: str = "") -> str:
    with blobs.create(key) as writer:
        writer.write(content)
        return writer.commit()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blob-cache").glob("*") if not path.name.startswith(".")]


def unfinished_uploads(s3: S3Server) -> int:
    return s3.ask(f"{BUCKET}?uploads").count("<UploadId>")


def test_a_store_has_the_id_it_was_given_and_another_prefix_is_refused(blobs: BlobStore, tmp_path: Path) -> None:
    assert blobs.store_id() is None
    blobs.set_up("one")
    blobs.check("one")
    with pytest.raises(ConfigError, match=r"\(one, expected two\): set CLIPWARDEN_BLOB_URL"):
        blobs.check("two")
    other = open_blobs(Settings(blob_url=f"{blobs.place}/below", state_dir=tmp_path))
    with pytest.raises(ConfigError, match="no store id"):
        other.check("one")
    assert list(blobs.keys()) == []


def test_a_bucket_that_does_not_exist_is_named(bucket_url: str, tmp_path: Path) -> None:
    nowhere = open_blobs(Settings(blob_url="s3://nowhere/x", state_dir=tmp_path))
    with pytest.raises(ConfigError, match="no bucket for s3://nowhere/x"):
        nowhere.set_up("one")


@pytest.mark.parametrize("blocks", [0, 1, LARGE])
def test_an_upload_of_any_size_appears_whole_when_it_is_committed(blobs: BlobStore, blocks: int) -> None:
    with blobs.create() as writer:
        for _ in range(blocks):
            writer.write(BLOCK)
        assert list(blobs.keys()) == []
        key = writer.commit()
    assert (list(blobs.keys()), writer.size) == ([key], blocks * len(BLOCK))
    assert writer.sha256 == hashlib.sha256(BLOCK * blocks).hexdigest()
    with blobs.local(key) as path:
        assert path.read_bytes() == BLOCK * blocks


@pytest.mark.parametrize("blocks", [1, LARGE])
def test_an_upload_given_up_leaves_nothing(blobs: BlobStore, s3: S3Server, blocks: int) -> None:
    writer = blobs.create()
    for _ in range(blocks):
        writer.write(BLOCK)
    if blocks == LARGE:
        assert unfinished_uploads(s3) == 1
    writer.abort()
    assert (list(blobs.keys()), unfinished_uploads(s3)) == ([], 0)


def test_a_bundle_part_is_fetched_once_and_an_upload_is_not_kept(blobs: BlobStore, tmp_path: Path) -> None:
    part, upload = put(blobs, b"part", f"{BUNDLES}/x/visual"), put(blobs, b"upload")
    for key, content in ((part, b"part"), (upload, b"upload")):
        with blobs.local(key) as path:
            assert path.read_bytes() == content
            assert path.stat().st_mode & 0o077 == 0
    assert len(cached(tmp_path)) == 1
    other_machine = open_blobs(Settings(blob_url=blobs.place, state_dir=tmp_path / "other"))
    other_machine.delete(part)
    with blobs.local(part) as path:
        assert path.read_bytes() == b"part"
    blobs.delete(part)
    assert cached(tmp_path) == []
    with pytest.raises(BlobGone), blobs.local(part):
        pass


def test_what_is_not_what_was_written_is_refused_and_not_kept(blobs: BlobStore, tmp_path: Path) -> None:
    key = put(blobs, b"changed", f"{BUNDLES}/x/visual")
    with pytest.raises(BlobGone, match="its digest is another"), blobs.local(key, hashlib.sha256(b"asked").hexdigest()):
        pass
    assert cached(tmp_path) == []


def test_what_was_mapped_outlives_its_place_in_the_cache(bucket_url: str, tmp_path: Path) -> None:
    tight = open_blobs(Settings(blob_url=bucket_url, state_dir=tmp_path, blob_cache_bytes=len(BLOCK)))
    keys = [put(tight, BLOCK, f"{BUNDLES}/{n}/visual") for n in range(3)]
    with tight.local(keys[0]) as path, path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for key in keys[1:]:
        with tight.local(key) as path:
            assert path.read_bytes() == BLOCK
    assert len(cached(tmp_path)) == 1
    assert mapped[:] == BLOCK


def test_blobs_are_listed_by_age_and_deleted(blobs: BlobStore) -> None:
    analysis_id = new_id()
    upload = put(blobs, b"x")
    for name in ("visual", "audio"):
        put(blobs, b"x", f"{BUNDLES}/{analysis_id}/{name}")
    time.sleep(1.1)  # the server counts whole seconds
    assert [*blobs.older_than(PARTIAL, 0)] == [*chain(*blobs.older_than(UPLOADS, 3600))] == []
    assert [*chain(*blobs.older_than(UPLOADS, 0))] == [upload]
    assert [*chain(*blobs.older_than(BUNDLES, 0))] == [f"{BUNDLES}/{analysis_id}"]
    blobs.delete_bundle(analysis_id)
    blobs.delete_bundle(analysis_id)
    assert list(blobs.keys()) == [upload]
    blobs.delete(upload)
    blobs.delete(upload)
    assert list(blobs.keys()) == []


def test_what_lies_deep_is_listed_once_though_its_files_are_on_two_pages(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwarden.shared.blobs.s3.PAGE", 2)
    for key in ("a/audio/1/x", "a/visual/2/x", "a/visual/2/y", "b/clip/3/x"):
        put(blobs, b"x", f"{EVIDENCE}/{key}")
    time.sleep(1.1)  # the server counts whole seconds
    pages = list(blobs.older_than(EVIDENCE, 0, 3))
    assert len(pages) == 3
    assert [*chain(*pages)] == [f"{EVIDENCE}/{key}" for key in ("a/audio/1", "a/visual/2", "b/clip/3")]
    assert not [key for key in blobs.keys() if key.startswith(PARTIAL)]


def test_nothing_is_deleted_from_a_bucket_that_has_gone(bucket_url: str, tmp_path: Path) -> None:
    gone = open_blobs(Settings(blob_url="s3://nowhere/x", state_dir=tmp_path))
    for act in (lambda: gone.delete("uploads/a"), lambda: gone.delete_folder(UPLOADS)):
        with pytest.raises(Unavailable):
            act()


def test_a_bundle_comes_back_and_a_damaged_part_is_gone(blobs: BlobStore, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (60, 256, 256, 3)).astype(np.uint8)  # larger than a part of an upload
    view = View.of(images, np.arange(60) / 25)
    sound = Sound.whole(rng.integers(-9, 9, 16_000).astype(np.int16))
    clips = {
        Branch.VISUAL: Clip({"v": view}, duration_s=2.4),
        Branch.AUDIO: Clip({}, {16_000: sound}, 2.4),
        Branch.LIPSYNC: Clip({"v": view}, {16_000: sound}, 2.4),
    }
    probe = MediaProbe(
        kind=MediaKind.VIDEO, container="mp4", duration_s=2.4, width=9, height=9, fps=25, frames=60, has_video=True,
        has_audio=True, size_bytes=1,
    )  # fmt: skip
    analysis_id = new_id()
    sizes = write_bundle(
        blobs, analysis_id, clips, BundleFacts(pipeline="p", probe=probe, plan=SamplingPlan(), versions={})
    )
    assert set(sizes) == {"visual+lipsync", "audio+lipsync"}
    back = read_part(blobs, analysis_id, Branch.LIPSYNC)
    assert np.array_equal(back.views["v"].images, images)
    assert np.array_equal(back.sounds[16_000].wave, sound.wave)
    key = next(part.key for part in read_manifest(blobs, analysis_id).parts if Branch.AUDIO in part.branches)
    content = bytearray(blobs.read(key))
    content[-1] ^= 1
    put(blobs, bytes(content), key)
    elsewhere = open_blobs(Settings(blob_url=blobs.place, state_dir=tmp_path / "other"))
    with pytest.raises(BlobGone, match="its digest is another"):
        read_part(elsewhere, analysis_id, Branch.AUDIO)
    assert len(read_part(elsewhere, analysis_id, Branch.VISUAL).views["v"]) == 60


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a service that says the same to every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (507, "InsufficientStorage", StorageFull),
        (403, "QuotaExceeded", StorageFull),
        (403, "AccessDenied", Unavailable),
    ],
)
def test_a_full_store_is_told_from_one_that_refuses(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type
) -> None:
    monkeypatch.setattr("clipwarden.shared.blobs.s3.RETRY", {"max_retries": 0})
    with answering(status, f"<Error><Code>{code}</Code></Error>".encode()) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        full = open_blobs(Settings(blob_url=bucket_url, state_dir=tmp_path))
        with full.create() as writer:
            writer.write(b"x")
            with pytest.raises(Unavailable) as raised:
                writer.commit()
    assert raised.type is kind


def test_a_store_that_cannot_be_used_says_why(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blobs: BlobStore
) -> None:
    settings = Settings(blob_url=bucket_url, state_dir=tmp_path)
    assert "no store id yet" in check_blobs(settings).found
    blobs.set_up("one")
    assert (check_blobs(settings).ok, "store id one" in check_blobs(settings).found) == (True, True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = check_blobs(settings)
    assert (refused.ok, "SignatureDoesNotMatch" in refused.remedy, "Debug" in refused.remedy) == (False, True, False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="error sending request"):
        open_blobs(settings).read("store-id")


def test_an_upload_whose_store_goes_away_fails_instead_of_waiting(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwarden.shared.blobs.s3.RETRY", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    away = open_blobs(Settings(blob_url=bucket_url, state_dir=tmp_path))
    with away.create() as writer, pytest.raises(Unavailable, match="could not write a blob"):
        writer.write(BLOCK * LARGE)


def test_the_gateway_streams_an_upload_into_the_bucket_and_forgets_one_cut_off(
    serve: Serve, bucket_settings: Settings, s3: S3Server, store: Store
) -> None:
    blobs = open_blobs(bucket_settings)
    content = BLOCK * LARGE

    def cut_off() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        for _ in range(LARGE):
            yield BLOCK

    with serve(bucket_settings) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        assert client.get("/readyz").status_code == 200
        taken = client.post("/v1/analyses", files={"file": ("clip.mp4", content)}).raise_for_status().json()
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert client.post("/v1/analyses", content=cut_off(), headers=kind).status_code == 400
    assert taken["input"]["sha256"] == hashlib.sha256(content).hexdigest()
    (key,) = blobs.keys()
    with blobs.local(key) as path:
        assert path.read_bytes() == content
    assert unfinished_uploads(s3) == 0


def test_the_gateway_refuses_another_installations_prefix(bucket_settings: Settings) -> None:
    wrong = bucket_settings.model_copy(update={"blob_url": f"{bucket_settings.blob_url}/other"})
    with pytest.raises(ConfigError, match="not the blob store of this database"):
        Gateway.open(wrong)


def test_the_sweeper_deletes_what_nobody_knows_of(bucket_settings: Settings, store: Store) -> None:
    blobs = open_blobs(bucket_settings)
    put(blobs, b"orphan")
    put(blobs, b"x", f"{BUNDLES}/{UUID(int=7)}/visual")
    time.sleep(1.1)
    impatient = bucket_settings.model_copy(update={"orphan_retention_s": 0.0, "bundle_retention_s": 0.0})
    assert sweep.Sweeper(impatient).sweep()["orphans_deleted"] == 2
    assert list(blobs.keys()) == []


def test_ingest_and_a_branch_on_another_machine_meet_in_the_bucket(
    bucket_settings: Settings, store: Store, talking_head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwarden.workers.ingest._dispatch", lambda *_: None)  # nobody here takes messages
    manifest = local_manifest()
    pipeline = pipeline_id(manifest)
    store.publish(pipeline, manifest)
    blobs = open_blobs(bucket_settings)
    upload = put(blobs, talking_head.read_bytes())
    analysis_id = store.submit(NewAnalysis("a.mp4", 1, "ab", upload, pipeline, deadline_s=600)).id
    reader = WorkerProcess(bucket_settings, Queue.INGEST)
    elsewhere = bucket_settings.model_copy(update={"state_dir": tmp_path / "elsewhere"})
    examiner = WorkerProcess(elsewhere, Queue.VISUAL)
    examiner.warm()
    try:
        ingest(reader, analysis_id, claimed(store, analysis_id, Stage.INGEST))
        assess_branch(examiner, Branch.VISUAL, analysis_id, claimed(store, analysis_id, Stage.VISUAL))
    finally:
        for process in (reader, examiner):
            process.fence.close()
            process.store.close()
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert {row.stage: row.status for row in analysis.stages}[Stage.VISUAL] is StageStatus.OK


def claimed(store: Store, analysis_id: UUID, stage: Stage) -> Granted:
    claim = store.claim(analysis_id, stage, lease_s=60, max_attempts=3, worker="w")
    assert isinstance(claim, Granted), store.analysis(analysis_id)
    return claim
