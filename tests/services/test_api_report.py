"""The report of an analysis: by key and by link, as a page that a real browser opens and prints."""

import re
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from playwright.sync_api import Browser

from clipwarden.api.access import Scope, digest_of
from clipwarden.api.keys import new_secret
from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import Branch, Stage
from clipwarden.shared.evidence import write_evidence
from clipwarden.shared.report.page import content_policy
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewKey, Store
from tests import reports
from tests.analyses import claim, finish, ingest
from tests.services.conftest import Serve

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
RUN = (Branch.VISUAL, Branch.AUDIO, Branch.LIPSYNC)


def examine(store: Store, blobs: BlobStore, analysis_id: UUID) -> None:
    """Bring an analysis to its end with evidence of three branches, as workers do."""
    made = reports.case()
    ingest(store, analysis_id, RUN)
    for result in made.results[: len(RUN)]:
        token = claim(store, analysis_id, Stage(result.branch))
        (found,) = result.detectors
        assert found.evidence
        files = {f"{found.name}/{e.name}": made.fetch(result, found.name, e.name) for e in found.evidence.exhibits}
        folder = write_evidence(blobs, analysis_id, result.branch, token, files)
        assert store.finish_branch(analysis_id, token, result.model_copy(update={"folder": folder}))
    assert store.fuse(analysis_id, lambda *_: made.verdict)


@pytest.fixture
def finished(store: Store, blobs: BlobStore, submitted: UUID) -> UUID:
    examine(store, blobs, submitted)
    return submitted


def links(gateway: httpx.Client, analysis_id: UUID) -> dict[str, str]:
    told: dict[str, str] = gateway.get(f"/v1/analyses/{analysis_id}").raise_for_status().json()["links"]
    return told


def test_a_link_opens_the_report_as_a_page_that_may_do_nothing(gateway: httpx.Client, finished: UUID) -> None:
    reply = gateway.get(links(gateway, finished)["report"])

    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert reply.headers["Content-Security-Policy"] == f"{content_policy()}; frame-ancestors 'none'; sandbox"
    assert reply.headers["Content-Disposition"] == f'inline; filename="clipwarden-{finished}.html"'
    assert reply.headers["Cache-Control"] == "no-store"
    assert all(said in reply.text for said in ("Judged fake", "clip.mp4", str(finished), "Scene as a whole: skipped"))
    assert reply.text.count("data:image/") == 7


def test_only_readers_and_holders_of_the_link_get_the_report(
    serve: Serve, gateway_settings: Settings, gateway: httpx.Client, store: Store, finished: UUID
) -> None:
    signed = links(gateway, finished)["report"]
    bare = signed.partition("?")[0]
    secrets = {who: new_secret() for who in (("default", Scope.READ), ("default", Scope.SUBMIT), ("other", Scope.READ))}
    for (tenant, scope), secret in secrets.items():
        store.create_key(NewKey(tenant=tenant, name="test", digest=digest_of(secret), scopes=[scope]))

    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as locked:
        told = [locked.get(bare, headers={"X-API-Key": secret}).status_code for secret in secrets.values()]
        others = [bare, signed, f"{signed}x", signed.replace(str(finished), str(uuid4()))]
        assert [locked.get(link).status_code for link in others] == [401, 200, 404, 404]
    assert told == [200, 403, 404]


def test_there_is_no_report_before_the_end_and_none_once_deleted(gateway: httpx.Client, finished: UUID) -> None:
    running = gateway.post("/v1/analyses", files={"file": ("b.mp4", b"other bytes")}).raise_for_status().json()
    early = gateway.get(f"/v1/analyses/{running['id']}/report")
    before = links(gateway, finished)["report"]
    gateway.delete(f"/v1/analyses/{finished}").raise_for_status()

    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    assert "report" not in running["links"]
    assert (gateway.get(before).status_code, "report" in links(gateway, finished)) == (404, False)


def test_an_analysis_that_was_cancelled_gets_a_report_of_what_was_found(
    gateway: httpx.Client, store: Store, submitted: UUID
) -> None:
    ingest(store, submitted)
    gateway.post(f"/v1/analyses/{submitted}/cancel").raise_for_status()
    reply = gateway.get(links(gateway, submitted)["report"]).raise_for_status()

    assert "No verdict: cancelled" in reply.text
    assert "Faces and frames: skipped" in reply.text
    assert "The analysis was cancelled." in reply.text


def test_feedback_and_lost_evidence_are_told(
    gateway: httpx.Client, store: Store, blobs: BlobStore, finished: UUID
) -> None:
    opinion = {"label": "real", "category": "false_positive", "comment": "<b>seen</b> the original"}
    gateway.post(f"/v1/analyses/{finished}/feedback", json=opinion).raise_for_status()
    blobs.delete_folder(f"evidence/{finished}")
    reply = gateway.get(links(gateway, finished)["report"]).raise_for_status()

    assert "&lt;b&gt;seen&lt;/b&gt; the original" in reply.text
    assert "7 pictures are no longer kept." in reply.text
    assert "data:image/" not in reply.text


def test_an_old_verdict_has_a_report_without_figures(
    gateway: httpx.Client, store: Store, blobs: BlobStore, submitted: UUID
) -> None:
    finish(store, blobs, submitted)
    reply = gateway.get(links(gateway, submitted)["report"]).raise_for_status()

    assert "Judged fake" in reply.text
    assert "held out of the fit" not in reply.text


def test_the_command_writes_what_the_gateway_tells(
    gateway: httpx.Client,
    gateway_url: str,
    finished: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CLIPWARDEN_API_URL", gateway_url)
    out = tmp_path / "report.html"
    running = gateway.post("/v1/analyses", files={"file": ("b.mp4", b"other bytes")}).raise_for_status().json()["id"]

    assert main(["report", str(finished), "--out", str(out)]) == 0
    assert "Judged fake" in out.read_text("utf-8")
    assert main(["report", running, "--out", str(out)]) == 2
    assert main(["report", "no such file.mp4", "--out", str(out)]) == 2
    assert main(["report", str(finished), "--out", str(tmp_path / "none" / "report.html")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert ["has not ended yet" in told[0], "neither a file nor the id" in told[1], "cannot be written" in told[2]] == [
        True
    ] * 3


def test_a_browser_opens_and_prints_the_report(
    gateway: httpx.Client, gateway_url: str, store: Store, blobs: BlobStore, browser: Browser, tmp_path: Path
) -> None:
    sent = {"file": (HOSTILE, b"some bytes")}
    metadata = {"metadata": '{"<script>alert(2)</script>": "\\u202e"}'}
    analysis_id = gateway.post("/v1/analyses", files=sent, data=metadata).raise_for_status().json()["id"]
    examine(store, blobs, UUID(analysis_id))
    page = browser.new_page(viewport={"width": 360, "height": 800})
    said, asked, opened = [], [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    page.on("dialog", lambda dialog: opened.append(dialog.message))

    page.goto(gateway_url + links(gateway, UUID(analysis_id))["report"])

    assert page.locator("h1").inner_text() == HOSTILE
    assert "<script>alert(2)</script>" in page.locator("main").inner_text()
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert page.evaluate("getComputedStyle(document.querySelector('.verdict')).borderLeftWidth") == "6px"
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert (said, opened, asked.count("http")) == ([], [], 1)
    printed = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    sizes = {tuple(map(round, map(float, box.split()))) for box in re.findall(rb"/MediaBox \[0 0 ([\d. ]+)\]", printed)}
    assert sizes == {(595, 842)}
    assert 2 <= printed.count(b"/MediaBox") <= 8
    page.close()


def test_the_report_is_read_without_a_mouse_and_without_colours(gateway: httpx.Client, finished: UUID) -> None:
    """What colours show is said by hatching, by words or by numbers too."""
    text = gateway.get(links(gateway, finished)["report"]).text

    assert 'class="bar real"' in text
    assert "url(#slant)" in text
    assert all(f">{word}<" in text for word in ("called real", "left open", "called fake", "← towards real"))
    assert text.count('role="img" aria-label="') == 6
