"""The page in a real Chromium before a real gateway: how it is served, and what it shows of an analysis."""

import gzip
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import cv2
import httpx
import numpy as np
from playwright.sync_api import Browser, expect

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.codes import SENTENCES, RejectCode
from clipwarden.shared.contracts import Label, MediaKind, Stage
from clipwarden.shared.store import Store
from tests.analyses import assess, claim, ingest
from tests.desk import at, clip_of, decided, examined, judged, shows, until, visiting
from tests.reports import RATES

Send = Callable[..., UUID]
MARKUP = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
FIRST_PAINT_BYTES = 100_000


def test_the_page_is_served_under_a_policy_that_lets_in_nothing_else(gateway: httpx.Client) -> None:
    reply = gateway.get("/page/")

    policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("trusted-types") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"


def test_what_a_browser_has_already_is_not_sent_again(gateway: httpx.Client) -> None:
    first = gateway.get("/page/main.js")

    again = gateway.get("/page/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"


def test_files_travel_packed_and_unpacked(gateway: httpx.Client) -> None:
    with gateway.stream("GET", "/page/base.css", headers={"Accept-Encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    plain = gateway.get("/page/base.css", headers={"Accept-Encoding": "identity"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(raw) == plain.content


def test_only_files_of_the_page_are_served(gateway: httpx.Client) -> None:
    for path in ("/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page/page/main.js"):
        assert gateway.get(path).status_code == 404


def test_a_browser_is_taken_to_the_page_and_a_program_is_not(gateway: httpx.Client) -> None:
    browsing = gateway.get("/", headers={"Accept": "text/html,*/*"})

    assert (browsing.status_code, browsing.headers["Location"]) == (303, "/page/")
    assert gateway.get("/").json()["links"]["page"] == "/page/"
    assert gateway.get("/page").headers["Location"] == "/page/"


def test_the_first_paint_takes_less_than_100_kilobytes(browser: Browser, gateway_url: str, shown: UUID) -> None:
    with visiting(browser, gateway_url, "/livez") as page:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        sizes: list[float] = []
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        page.goto(f"{gateway_url}/page/", wait_until="networkidle")
        expect(page.locator("#queue a")).to_have_count(1)

    assert len(sizes) > 10
    assert sum(sizes) < FIRST_PAINT_BYTES


def test_a_verdict_is_shown_with_what_it_means_and_what_made_it(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        verdict = page.locator(".verdict")
        expect(verdict).to_contain_text("Judged fake")
        expect(verdict).to_contain_text("73 %")
        expect(verdict).to_contain_text("fake from 60 %, real up to 40 %")
        shares = verdict.locator("tbody .number").all_text_contents()
        total = verdict.locator("tfoot .number").text_content() or ""
        expect(page.locator(".lane.skipped")).to_contain_text("No detector of this branch is installed")
        expect(page.locator(".about")).to_contain_text("It is not proof")

    assert shares == ["+0.10", "+1.20", "\N{MINUS SIGN}0.30"]
    assert total == "+1.00 = 73 %"


def test_a_label_is_told_by_words_and_shape_and_inconclusive_is_not_real(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    words = {"fake": "Judged fake", "real": "Judged real", "inconclusive": "Inconclusive"}
    for label in Label:
        decided(store, blobs, send(f"{label}.webm"), label)
    with visiting(browser, gateway_url) as page:
        verdict = page.locator(".verdict")
        for label in Label:
            page.locator("#queue a", has_text=f"{label}.webm").click()
            expect(verdict.locator("h2")).to_have_text(words[label])
            expect(verdict.locator(f".label svg.icon.{label}")).to_have_count(1)
            expect(page.locator(f"#queue .entry.{label} .word")).to_contain_text(label)
        expect(verdict).to_contain_text("not a finding that the clip is real")


def test_how_often_a_number_is_wrong_is_claimed_only_where_it_was_counted(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    counted, uncounted = send("counted.webm"), send("uncounted.webm")
    for analysis_id, rates in ((counted, RATES), (uncounted, None)):
        ingest(store, analysis_id)
        assess(store, blobs, analysis_id)
        verdict = judged().model_copy(update={"error_rates": rates})
        assert store.fuse(analysis_id, lambda *_, verdict=verdict: verdict)
    with visiting(browser, gateway_url, at(uncounted)) as page:
        trust = page.locator(".trust")
        expect(trust).to_contain_text("Of 100 clips with this number, about 73 are fake")
        expect(trust).not_to_contain_text("Half of those")
        page.goto(gateway_url + at(counted))
        expect(trust).to_contain_text("Half of those were fake")
        expect(trust).to_contain_text(RATES.text)


def test_the_skip_link_leads_to_the_analysis_that_is_open(browser: Browser, gateway_url: str, shown: UUID) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        expect(page.locator(".verdict h2")).to_be_visible()
        page.get_by_role("link", name="Skip to the analysis").press("Enter")
        expect(page.locator("#main")).to_be_focused()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
        assert page.url == gateway_url + at(shown)


def test_the_evidence_is_shown_and_leads_to_its_moment(browser: Browser, gateway_url: str, shown: UUID) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        evidence = page.locator(".evidence")
        expect(evidence.locator("img")).to_have_count(3)
        until(page, "[...document.querySelectorAll('.evidence img')].every((i) => i.naturalWidth > 0)")
        expect(evidence.locator(".curve svg")).to_have_attribute("aria-label", re.compile(r"highest at 0\.20 s"))
        expect(evidence.locator(".marks")).to_have_attribute("aria-label", re.compile("^5 windows"))
        expect(evidence.locator(".marks rect")).to_have_count(5)
        slider = page.get_by_role("slider")
        evidence.get_by_role("button", name="Go to 0:00.6").click()
        expect(slider).to_have_attribute("aria-valuenow", "0.6")
        page.locator(".ranges button").nth(1).click()
        expect(slider).to_have_attribute("aria-valuenow", "1.2")
        expect(slider).to_have_attribute("aria-valuetext", re.compile("in the suspicious stretch 0:01.2 to 0:01.4"))


def test_a_spectrogram_is_marked_where_any_window_is_suspicious(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    analysis_id = send("long.mkv", bytes(1000))
    examined(store, blobs, analysis_id, clip_of(40.0), windows=40)
    suspicious = sum(math.sin(k) >= 0 for k in range(40))
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        expect(page.locator(".evidence .marks rect")).to_have_count(suspicious)


def test_the_timeline_draws_scores_and_stretches_and_goes_where_it_is_pressed(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    colour = """([x, y]) => { const c = document.querySelector('.timeline');
        return c.getContext('2d').getImageData(Math.round(x * c.width), y, 1, 1).data.join(); }"""
    with visiting(browser, gateway_url, at(shown)) as page:
        slider = page.get_by_role("slider")
        expect(page.locator(".evidence .curve svg")).to_be_visible()
        stretch, nothing = page.evaluate(colour, [0.25, 8]), page.evaluate(colour, [0.5, 8])
        assert (stretch == nothing, nothing) == (False, "0,0,0,0")
        high, low = page.evaluate(colour, [0.2, 50]), page.evaluate(colour, [0.7, 50])
        assert high == stretch, "a score over one half has the colour of a fake"
        assert low not in {high, nothing}, "a row has a ground"
        box = slider.bounding_box()
        assert box
        slider.click(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
        expect(slider).to_have_attribute("aria-valuenow", "1.5")


def test_the_clip_plays_blurred_and_mute_with_faces_drawn_over_it(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    drawn = """() => { const c = document.querySelector('.overlay');
        return c.width > 0 && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"""
    with visiting(browser, gateway_url, at(shown)) as page:
        until(page, "document.querySelector('video')?.readyState >= 2")
        until(page, drawn)
        video = "document.querySelector('video')"
        assert page.evaluate(f"{video}.muted")
        assert "blur" in page.evaluate(f"getComputedStyle({video}).filter")
        page.keyboard.press("b")
        page.keyboard.press("m")
        assert not page.evaluate(f"{video}.muted")
        assert page.evaluate(f"getComputedStyle({video}).filter") == "none"
        page.keyboard.press("m")
        page.keyboard.press("k")
        until(page, f"{video}.currentTime > 0.2")
        page.keyboard.press("k")
        page.reload()
        until(page, "document.querySelector('video')?.readyState >= 2")
        assert page.evaluate(f"{video}.muted")
        assert page.evaluate(f"getComputedStyle({video}).filter") == "none", "what was chosen is kept"


def test_a_clip_that_the_browser_cannot_play_still_shows_its_evidence(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    analysis_id = send("odd.mkv", bytes(1000))
    examined(store, blobs, analysis_id, clip_of(4.0))
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        shows(page, "This browser cannot play this file")
        expect(page.get_by_role("link", name="Save the file")).to_be_visible()
        until(page, "[...document.querySelectorAll('.evidence img')].every((i) => i.naturalWidth > 0)")
        page.get_by_role("slider").press("End")
        expect(page.get_by_role("slider")).to_have_attribute("aria-valuenow", "4.0")


def test_a_picture_and_a_sound_are_shown_as_what_they_are_and_a_huge_picture_fits(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send, wav: Path
) -> None:
    huge = cv2.imencode(".jpg", np.full((8000, 8000), 90, np.uint8))[1].tobytes()
    picture, sound = send("huge.jpg", huge), send(wav.name, wav.read_bytes())
    size = {"width": 8000, "height": 8000}
    examined(store, blobs, picture, clip_of(0.0, MediaKind.IMAGE, container="jpeg_pipe", **size))
    examined(store, blobs, sound, clip_of(3.0, MediaKind.AUDIO, container="wav"))
    with visiting(browser, gateway_url, at(picture)) as page:
        until(page, "document.querySelector('.stage img')?.naturalWidth === 8000")
        assert page.evaluate("document.querySelector('.stage img').clientHeight <= innerHeight")
        expect(page.get_by_role("slider")).to_have_count(0)
        page.goto(gateway_url + at(sound))
        until(page, "document.querySelector('audio')?.readyState >= 1")
        expect(page.get_by_role("slider")).to_be_visible()
        expect(page.locator("video")).to_have_count(0)


def test_hostile_names_tags_and_metadata_are_text(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    name = MARKUP.replace("/", "") + ".webm"
    analysis_id = send(name, tag=MARKUP, metadata=json.dumps({MARKUP: "\u202e" + MARKUP}))
    examined(store, blobs, analysis_id, clip_of(4.0))
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        expect(page.locator("#analysis h1")).to_have_text(name)
        expect(page.locator("#queue")).to_contain_text(MARKUP)
        page.locator("summary", has_text="The file").click()
        metadata = page.locator(".about code", has_text="onerror")
        expect(metadata).to_contain_text("document.title='taken'")
        assert "\u202e" not in (metadata.text_content() or "")
        assert page.locator("img[src='x'], body script").count() == 0
        assert page.title() != "taken"


def test_a_refused_or_failed_file_says_why_and_what_to_do(
    browser: Browser, gateway_url: str, store: Store, send: Send
) -> None:
    analysis_id = send()
    token = claim(store, analysis_id, Stage.INGEST)
    assert store.end_ingest(analysis_id, token, RejectCode.TRUNCATED, None)
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        shows(page, "The file could not be examined")
        shows(page, SENTENCES[RejectCode.TRUNCATED])
        expect(page.locator(".verdict")).to_be_hidden()
