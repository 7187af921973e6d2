"""From the drop of a clip to its verdict and its report, in a real browser, with real workers that die on the way."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from clipwarden.shared.codes import SENTENCES, RejectCode
from tests.desk import until, visiting
from tests.e2e.conftest import System

VERDICT_MS = 90_000
LABELS = {"fake": "Judged fake", "real": "Judged real", "inconclusive": "Inconclusive"}
LEASED = "SELECT 1 FROM stages WHERE analysis_id = :id AND stage = :stage AND status = 'leased'"
SAID = "SELECT comment FROM feedback WHERE analysis_id = :id"
TAKEN_AGAIN = "SELECT 1 FROM stages WHERE analysis_id = :id AND stage = :stage AND attempts > 1"


@pytest.fixture
def page(browser: Browser, system: System) -> Iterator[Page]:
    with visiting(browser, system.stack.api_url) as page:
        yield page


def opened(page: Page) -> str:
    """The id of the analysis that the page shows."""
    until(page, "location.hash.startsWith('#/analyses/')")
    return str(page.evaluate("location.hash")).rpartition("/")[2]


def test_a_clip_goes_from_the_drop_to_a_verdict_with_its_evidence_and_its_report(
    page: Page, system: System, talking_head: Path
) -> None:
    page.set_input_files("#files", talking_head)
    expect(page.locator("#analysis h1", has_text="talking head.mp4")).to_be_visible()
    verdict = page.locator(".verdict")
    expect(verdict).to_be_visible(timeout=VERDICT_MS)
    analysis = system.client.wait(opened(page), 10).model_dump(mode="json")

    expect(verdict.locator("h2")).to_have_text(LABELS[analysis["verdict"]["label"]])
    expect(verdict).to_contain_text(analysis["verdict"]["error_rates"]["text"])
    assert verdict.locator("tbody tr").count() == 1 + len(analysis["verdict"]["contributions"])
    page.locator(".evidence").scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.evidence img')].filter((i) => i.naturalWidth > 0).length >= 2")
    with page.context.expect_page() as reported:
        page.get_by_role("link", name="Report").click()
    expect(reported.value.locator("body")).to_contain_text(analysis["input"]["sha256"])


def test_an_analysis_is_followed_through_a_reload_and_the_death_of_its_worker(
    page: Page, system: System, talking_head: Path
) -> None:
    page.set_input_files("#files", {"name": "again.mp4", "mimeType": "video/mp4", "buffer": other(talking_head)})
    analysis_id = opened(page)
    system.until(LEASED, id=analysis_id, stage="visual")
    with suppress(ProcessLookupError), system.frozen("visual"):
        assert system.rows(LEASED, id=analysis_id, stage="visual"), "the worker is stopped while it holds the stage"
        page.reload()
        expect(page.locator("#analysis h1")).to_have_text("again.mp4")
        expect(page.locator(".steps [aria-current=step]")).to_have_text("Running models")
        system.kill("visual")
    expect(page.locator(".verdict")).to_be_visible(timeout=VERDICT_MS)
    expect(page.get_by_role("region", name="Faces and frames")).to_contain_text("done")
    assert system.wait(analysis_id)["branches"]["visual"]["status"] == "ok"
    assert system.rows(TAKEN_AGAIN, id=analysis_id, stage="visual")


def test_a_verdict_is_reviewed_with_the_keyboard_alone(page: Page, system: System, talking_head: Path) -> None:
    analysis_id = system.submit(talking_head)
    system.wait(analysis_id)
    page.reload()
    page.locator(f"#queue a[href$='{analysis_id}']").wait_for()
    page.keyboard.press("n")
    expect(page.locator(".verdict")).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.type("the original is known")
    for key in ("Tab", "Tab", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert opened(page) == analysis_id
    assert [row.comment for row in system.rows(SAID, id=analysis_id)] == ["the original is known"]


def test_a_file_that_is_no_clip_is_refused_with_the_reason(page: Page) -> None:
    page.set_input_files("#files", {"name": "notes.mp4", "mimeType": "video/mp4", "buffer": b"not a clip at all"})
    expect(page.locator("#analysis h1")).to_have_text("notes.mp4")
    expect(page.locator(".fault-card")).to_contain_text(SENTENCES[RejectCode.NOT_MEDIA], timeout=VERDICT_MS)
    expect(page.locator(".verdict")).to_be_hidden()


def other(path: Path) -> bytes:
    """The same clip, and yet another file: an empty box at its end, which every reader of MP4 passes over."""
    return path.read_bytes() + b"\x00\x00\x00\x08free"
