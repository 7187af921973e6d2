"""Both clients on everything they can do, against a live gateway; files in folders above all."""

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clipwarden.api import keys
from clipwarden.api.access import Scope, digest_of
from clipwarden.api.client import AsyncClient, Client, Operations, Sent
from clipwarden.api.client.steps import form
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import AnalysisState, Label, Lane
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewKey, Store
from tests import analyses
from tests.services.conftest import MAX_UPLOAD, Serve


class Awaited:
    """An AsyncClient whose methods are waited for, so that one test is of both clients."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._loop = asyncio.Runner()
        self._client = self._loop.run(self._opened(url, api_key))

    @staticmethod
    async def _opened(url: str, api_key: str) -> AsyncClient:
        return AsyncClient(url, api_key)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def called(*args: Any, **kwargs: Any) -> Any:
            return await getattr(self._client, name)(*args, **kwargs)

        return lambda *args, **kwargs: self._loop.run(called(*args, **kwargs))

    def end(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, gateway_url: str) -> Iterator[Any]:
    if request.param == "sync":
        with Client(gateway_url) as made:
            yield made
    else:
        awaited = Awaited(gateway_url)
        yield awaited
        awaited.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of different content, one empty, one hidden."""
    made = tmp_path / "clips"
    (made / "more").mkdir(parents=True)
    for name, content in {"a.mp4": b"a", "more/b ü#?.mp4": b"b", "c.mp4": b"c"}.items():
        (made / name).write_bytes(content * 300_000)
    (made / "empty.mp4").touch()
    (made / ".hidden.mp4").write_bytes(b"h")
    return made


@contextmanager
def workers(store: Store, blobs: LocalBlobs) -> Iterator[None]:
    """Ends every analysis that is opened while the context lasts."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            for due in store.due(everything=True):
                analyses.finish(store, blobs, due.analysis_id)
            over.wait(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def paths(folder: Path) -> list[Path]:
    return [folder / name for name in ("a.mp4", "more/b ü#?.mp4", "c.mp4")]


def test_a_folder_is_sent_in_one_batch_and_known_the_second_time(
    client: Any, store: Store, blobs: LocalBlobs, folder: Path
) -> None:
    told: list[tuple[int, int]] = []
    counted: list[int] = []
    with workers(store, blobs):
        sent: Sent = client.submit_batch(
            paths(folder), tag="monday", metadata={"a": 1}, progress=lambda n, of: told.append((n, of))
        )
        assert sent.batch is not None
        ended = client.wait_batch(sent.batch.id, 30, progress=lambda now: counted.append(now.ended))
    again: Sent = client.submit_batch(paths(folder))

    assert [item.source for item in sent.items] == paths(folder)
    assert (sent.batch.accepted, sent.batch.tag) == (3, "monday")
    assert max(told) == (900_000, 900_000)
    assert ended.labels == {Label.FAKE: 3}
    assert (len(ended.items), counted[-1]) == (3, 3)
    assert [(item.state, item.label) for item in again.items] == [(AnalysisState.DONE, Label.FAKE)] * 3
    first = client.get(sent.items[1].id)
    assert (first.input.filename, first.tag, first.metadata) == ("b ü#?.mp4", "monday", {"a": 1})
    views = client.get_all([item.id for item in again.items])
    assert [(view.id, view.from_cache) for view in views] == [(item.id, True) for item in again.items]


def test_what_cannot_be_taken_is_told_one_by_one(client: Any, folder: Path) -> None:
    (folder / "large.mp4").write_bytes(b"x" * (MAX_UPLOAD + 1))
    wrong = [folder / "empty.mp4", folder / "none.mp4", "http://10.0.0.1/a.mp4", folder / "large.mp4"]

    sent: Sent = client.submit_batch([*wrong, folder / "a.mp4"])
    none: Sent = client.submit_batch(wrong[:2])

    assert sent.batch is not None
    assert (sent.batch.total, sent.batch.accepted) == (2, 1)
    errors = [item.error and item.error.code for item in sent.items]
    assert errors == ["invalid", "config", "invalid", "too_large", None]
    assert sent.items[4].id is not None
    assert (none.batch, [item.id for item in none.items]) == (None, [None, None])


def test_every_option_reaches_the_analysis(client: Any, store: Store, clip_file: Path) -> None:
    options = {
        "tag": 'ü"\r\n--',
        "metadata": {"a": [1, None]},
        "detectors": ["forensic_mlp"],
        "policy": "strict",
        "lane": Lane.BULK,
        "callback_url": "https://hooks.example.com/x",
        "reuse": False,
    }
    opened = [client.submit(source, **options) for source in (clip_file, str(clip_file), "https://a.example/b.mp4")]
    opened.append(client.submit_batch([clip_file], **options).items[0])

    for each in opened:
        found = store.analysis(each.id)
        assert found is not None
        assert (found.tag, found.metadata) == (options["tag"], options["metadata"])
        assert (found.detectors, found.policy, found.lane) == (("forensic_mlp",), "strict", Lane.BULK)


def test_a_name_of_any_bytes_arrives(client: Any, clip_file: Path) -> None:
    for name in ('a"b.mp4', "a%22b\r\n.mp4", "-.mp4", "é\udcff.mp4"):
        renamed = clip_file.rename(clip_file.with_name(name))
        assert client.submit(renamed, reuse=False).input.bytes == 256_000
        assert client.upload(renamed).bytes == 256_000
        renamed.rename(clip_file)


def test_a_form_is_what_the_standard_library_reads(clip_file: Path) -> None:
    body = form(clip_file, {"tag": "x"}, None)
    sent = b"".join(body.pieces())

    assert len(sent) == int(body.headers["Content-Length"])
    assert sent.count(clip_file.read_bytes()) == 1


def test_an_analysis_is_listed_cancelled_run_again_judged_and_deleted(
    client: Any, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    first = client.submit(clip_file, tag="mine")
    analyses.finish(store, blobs, first.id)
    again = client.rerun(first.id)

    assert client.cancel(again.id).state is AnalysisState.CANCELLED
    assert client.feedback(first.id, "real", "false_positive", "seen it live").comment == "seen it live"
    page = client.analyses(tag="mine", limit=1)
    assert [each.id for each in page.analyses] == [again.id]
    assert [each.id for each in client.analyses(tag="mine", limit=1, cursor=page.next).analyses] == [first.id]
    assert [each.id for each in client.analyses(state="done", created_after=first.created_at).analyses] == [first.id]
    assert client.delete(first.id).state is AnalysisState.DELETED
    assert "balanced" in client.detectors().policies


def test_the_two_clients_have_the_same_methods() -> None:
    listed = {name for name, _ in inspect.getmembers(Operations, callable) if not name.startswith("_")}

    assert {"submit", "submit_batch", "get", "wait", "cancel", "rerun", "delete", "feedback"} <= listed
    for kind in (Client, AsyncClient):
        made = kind("http://127.0.0.1:9")
        assert all(getattr(made, name).__doc__ for name in listed)


@pytest.fixture
def at_gateway(gateway_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPWARDEN_API_URL", gateway_url)


@pytest.mark.usefixtures("at_gateway")
def test_the_command_line_sends_a_folder_and_says_what_was_refused(
    store: Store, blobs: LocalBlobs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workers(store, blobs):
        status = main(["submit", str(folder), "--wait", "--json", "--tag", "mine", "--metadata", '{"a": 1}'])

    shown = capsys.readouterr()
    views = [json.loads(line) for line in shown.out.splitlines()]
    assert [view["input"]["filename"] for view in views] == ["a.mp4", "c.mp4", "b ü#?.mp4"]
    assert {(view["state"], view["tag"], view["metadata"]["a"]) for view in views} == {("done", "mine", 1)}
    assert status == 1
    assert "clipwarden: empty.mp4: The file is empty; check the upload and send it again." in shown.err.splitlines()


@pytest.mark.usefixtures("at_gateway")
def test_wrong_words_are_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert main(["submit", str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["submit", str(tmp_path), "--metadata", "[]"])

    said = capsys.readouterr().err
    assert "there is no file in" in said
    assert "not a JSON object" in said


def test_a_narrow_rate_makes_a_batch_slower_and_no_smaller(
    serve: Serve, gateway_settings: Settings, store: Store, folder: Path
) -> None:
    secret = keys.new_secret()
    limited = NewKey("acme", "narrow", digest_of(secret), [Scope.SUBMIT, Scope.READ], requests_per_minute=30)
    store.create_key(limited)
    with serve(gateway_settings) as url, Client(url, secret) as client:
        sent = client.submit_batch(paths(folder) * 10)

    assert [item.error for item in sent.items] == [None] * 30


def test_a_batch_that_is_sent_again_under_its_key_is_the_same_batch(client: Any, store: Store, folder: Path) -> None:
    first, again = (client.submit_batch(paths(folder), idempotency_key="monday") for _ in range(2))

    assert first.batch is not None
    assert again.batch == first.batch
    assert [item.id for item in again.items] == [item.id for item in first.items]
    assert len(store.due(everything=True)) == 3


@pytest.mark.usefixtures("at_gateway")
def test_of_several_files_the_last_one_alone_is_in_the_bulk_lane_too(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipwarden.api.submit_command.MOST_ITEMS", 2)

    assert main(["submit", "--json", *map(str, paths(folder))]) == 0

    ids = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert [found.lane for each in ids if (found := store.analysis(each))] == [Lane.BULK] * 3
