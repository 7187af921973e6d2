"""The client and its two commands, against a live gateway."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from clipwarden.api.client import Client
from clipwarden.api.commands import gateway_url as known_gateway
from clipwarden.shared.cli import main
from clipwarden.shared.codes import ProblemCode, RejectCode
from clipwarden.shared.contracts import AnalysisState, Stage
from clipwarden.shared.errors import ConfigError, ProblemError, Unavailable
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, Store
from tests.services.conftest import Serve


def reject(store: Store, analysis_id: UUID) -> None:
    granted = store.claim(analysis_id, Stage.INGEST, 60, 3, "test")
    assert isinstance(granted, Granted)
    assert store.end_ingest(analysis_id, granted.token, RejectCode.NOT_MEDIA, "The file is no media.")


def test_the_client_uploads_and_waits_for_the_end(gateway_url: str, store: Store, clip_file: Path) -> None:
    sent: list[tuple[int, int]] = []
    seen: list[AnalysisState] = []
    size = clip_file.stat().st_size
    with Client(gateway_url) as client:
        view = client.submit(
            clip_file, tag="t", metadata={"a": 1}, progress=lambda now, total: sent.append((now, total))
        )
        later = threading.Timer(0.3, reject, (store, view.id))
        later.start()
        ended = client.wait(view.id, 20, progress=lambda now: seen.append(now.state))
        later.join()

    assert (view.tag, view.metadata, view.input.bytes) == ("t", {"a": 1}, size)
    assert sent[-1] == (size, size)
    assert [now for now, _ in sent] == sorted(now for now, _ in sent)
    assert (seen[0], ended.state) == (AnalysisState.QUEUED, AnalysisState.REJECTED)


def test_waiting_ends_at_its_limit(gateway_url: str, clip_file: Path) -> None:
    with Client(gateway_url) as client, pytest.raises(Unavailable, match=r"queued after 0\.2 s"):
        client.wait(client.submit(clip_file).id, 0.2)


def test_the_gateways_problems_are_raised_as_such(gateway_url: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with Client(gateway_url) as client:
        with pytest.raises(ProblemError, match="The file is empty") as refused:
            client.submit(empty)
        with pytest.raises(ProblemError) as unknown:
            client.get(uuid4())

    assert refused.value.code == ProblemCode.INVALID
    assert unknown.value.code == ProblemCode.NOT_FOUND


def test_a_large_upload_over_the_limit_still_hears_why(gateway_url: str, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(200 * 1024 * 1024)

    with Client(gateway_url) as client, pytest.raises(ProblemError) as refused:
        client.submit(large)

    assert refused.value.code == ProblemCode.TOO_LARGE


def test_reading_outlasts_a_short_absence_of_the_gateway(
    serve: Serve, gateway_settings: Settings, submitted: UUID
) -> None:
    with serve(gateway_settings) as url:
        client = Client(url)
        assert client.get(submitted).id == submitted
    port = int(url.rpartition(":")[2])
    returning = threading.Event()

    def come_back() -> None:
        with serve(gateway_settings, port):
            returning.wait(20)

    later = threading.Timer(0.3, come_back)
    later.start()
    with client:
        view = client.get(submitted)
    returning.set()
    later.join()

    assert view.id == submitted


def test_a_gateway_that_is_not_there_is_named(clip_file: Path) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9"):
        client.submit(clip_file)


@pytest.fixture
def at_gateway(gateway_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPWARDEN_API_URL", gateway_url)


def lines(*arguments: str) -> list[Any]:
    """What the command line, as a process of its own, prints as JSON."""
    script = "from clipwarden.shared.cli import main; raise SystemExit(main())"
    shown = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in shown.stdout.splitlines()]


@pytest.mark.usefixtures("at_gateway")
def test_submit_and_status_speak_json(clip_file: Path) -> None:
    submitted = lines("submit", str(clip_file), str(clip_file), "--tag", "mine", "--json")
    read = lines("status", submitted[0]["id"], "--json")

    assert [s["tag"] for s in submitted] == ["mine", "mine"]
    assert submitted[0]["id"] != submitted[1]["id"]
    assert read == submitted[:1]


@pytest.mark.usefixtures("at_gateway")
def test_submit_shows_people_a_table(clip_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked = clip_file.rename(clip_file.with_name("[red]clip.mp4"))

    assert main(["submit", str(marked)]) == 0

    out = capsys.readouterr().out
    assert "[red]clip.mp4" in out
    assert "queued 0%" in out


@pytest.mark.usefixtures("at_gateway")
def test_submit_and_wait_fails_when_the_file_is_rejected(
    clip_file: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    done = threading.Event()

    def worker() -> None:
        while not done.is_set():
            for due in store.due(everything=True):
                reject(store, due.analysis_id)
            done.wait(0.05)

    thread = threading.Thread(target=worker)
    thread.start()
    try:
        status = main(["submit", str(clip_file), "--wait"])
    finally:
        done.set()
        thread.join()

    assert status == 1
    assert "The file is no media." in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("at_gateway")
def test_wrong_use_is_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(tmp_path / "none.mp4")]) == 2
    assert main(["status", str(uuid4())]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert "there is no file" in lines[0]
    assert lines[1].startswith("clipwarden: There is nothing at this address")


def test_the_gateway_that_up_started_is_found(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, api_url="")
    with pytest.raises(ConfigError, match="clipwarden up"):
        known_gateway(settings)

    (tmp_path / "ready.json").write_text(json.dumps({"api": "http://127.0.0.1:8123"}), "utf-8")

    assert known_gateway(settings) == "http://127.0.0.1:8123"
    assert known_gateway(settings.model_copy(update={"api_url": "http://elsewhere"})) == "http://elsewhere"
