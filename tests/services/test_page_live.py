"""The page while things move, refuse, fail and ask for keys."""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
from playwright.sync_api import Browser, Route, expect

from clipwarden.api import keys
from clipwarden.api.access import digest_of
from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.contracts import Stage
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewKey, Store
from tests.analyses import claim, found
from tests.desk import at, begun, clip_of, examined, problem, until, visiting
from tests.services.conftest import Serve

Send = Callable[..., UUID]


def test_stages_and_lanes_are_those_of_the_analysis(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    analysis_id = send()
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        step = page.locator(".steps [aria-current=step]")
        expect(step).to_have_text("Queued")
        expect(page.locator(".outlook")).to_contain_text("Next in the queue")
        begun(store, analysis_id, clip_of(4.0))
        expect(step).to_have_text("Running models")
        token = claim(store, analysis_id, Stage.VISUAL)
        lane = page.get_by_role("region", name="Faces and frames")
        page.locator("summary", has_text="The file").click()
        expect(lane.get_by_role("listitem")).to_have_text(["forensic_mlprunning"])
        store.tell_branch(analysis_id, token, found(detector="frame_stats"))
        expect(lane.get_by_role("listitem")).to_have_text(["frame_stats0.751.5 s", "forensic_mlprunning"])
        expect(page.get_by_role("region", name="Speech", exact=True)).to_contain_text("waiting for a worker")
        expect(page.locator("details[open] summary")).to_have_text(["The file"])


def told(value: object) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=value)


def test_no_detector_is_awaited_that_the_analysis_was_not_asked_for_or_that_came_later(
    browser: Browser, gateway: httpx.Client, gateway_url: str, store: Store, send: Send
) -> None:
    installed = gateway.get("/v1/detectors").json()
    more = [*installed["detectors"], {**installed["detectors"][0], "name": "frame_stats"}]
    chosen, other = send(detectors="forensic_mlp"), send(content=b"other")
    for analysis_id in (chosen, other):
        begun(store, analysis_id, clip_of(4.0))
    awaited = {chosen: ["forensic_mlpto come"], other: ["forensic_mlpto come", "frame_statsto come"]}
    with visiting(browser, gateway_url) as page:
        lane = page.get_by_role("region", name="Faces and frames")
        for pipeline in (installed["pipeline"], "a later one"):
            page.route("**/v1/detectors", told({**installed, "detectors": more, "pipeline": pipeline}))
            page.reload()
            for analysis_id, names in awaited.items():
                page.goto(gateway_url + at(analysis_id))
                expect(lane).to_contain_text("waiting for a worker")
                expect(lane.get_by_role("listitem")).to_have_text(names if pipeline == installed["pipeline"] else [])


def test_an_analysis_that_shares_a_run_says_so(browser: Browser, gateway_url: str, send: Send) -> None:
    send(reuse="true")
    second = send(reuse="true")
    with visiting(browser, gateway_url, at(second)) as page:
        expect(page.locator(".outlook")).to_contain_text("shares the run of the same content")


def test_a_double_click_runs_an_analysis_again_once(
    browser: Browser, gateway: httpx.Client, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        page.get_by_role("button", name="Run again").dblclick()
        expect(page.locator("#queue a")).to_have_count(2)
        expect(page.locator(".outlook")).to_be_visible()
    made = {analysis["id"] for analysis in gateway.get("/v1/analyses").json()["analyses"]}
    assert len(made - {str(shown)}) == 1


def test_a_file_that_does_not_play_is_offered_by_its_newest_link(browser: Browser, gateway_url: str) -> None:
    failed = """async () => { const { Player } = await import('/page/player.js');
        const player = { link: '/new', media: null, said: document.createElement('p'), draw() {},
                         playhead: { time: 0, follow() {} } };
        Player.prototype.failed.call(player, '/old');
        return player.said.querySelector('a').getAttribute('href'); }"""
    with visiting(browser, gateway_url) as page:
        assert page.evaluate(failed) == "/new"


def test_an_analysis_is_followed_over_a_restart_of_the_gateway(
    browser: Browser, gateway_settings: Settings, serve: Serve, store: Store, blobs: BlobStore, playable: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serve(gateway_settings, port) as url:
        with httpx.Client(base_url=url, trust_env=False) as client, playable.open("rb") as file:
            analysis_id = UUID(client.post("/v1/analyses", files={"file": file}).json()["id"])
        context = browser.new_context()
        page = context.new_page()
        page.goto(url + at(analysis_id))
        expect(page.locator(".steps [aria-current=step]")).to_have_text("Queued")
    expect(page.locator(".desk-head + .trouble")).to_have_text(re.compile("trying again|does not answer"))
    examined(store, blobs, analysis_id, clip_of(4.0))
    with serve(gateway_settings, port):
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
        expect(page.locator(".desk-head + .trouble")).to_be_hidden()
        context.close()


def test_an_analysis_is_followed_where_no_stream_gets_through(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    analysis_id = send()
    with visiting(browser, gateway_url) as page:
        page.route("**/events", lambda route: route.abort())
        page.goto(gateway_url + at(analysis_id))
        expect(page.locator(".steps [aria-current=step]")).to_have_text("Queued")
        examined(store, blobs, analysis_id, clip_of(4.0))
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")


def test_a_gateway_that_refuses_for_a_while_is_quoted_and_asked_again(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url) as page:
        for status, retry_after in ((429, "1"), (503, "1"), (500, None)):
            page.goto(f"{gateway_url}/livez")
            page.route(re.compile("/v1/analyses"), problem(status, f"Come back later: {status}.", retry_after))
            page.goto(gateway_url + at(shown))
            expect(page.locator("#queue-said")).to_contain_text(f"Come back later: {status}.")
            expect(page.locator(".desk-head + .trouble")).to_contain_text(f"Come back later: {status}.")
            page.unroute_all()
            expect(page.locator(".verdict h2")).to_have_text("Judged fake")
            expect(page.locator("#queue a")).to_have_count(1)
            expect(page.locator("#queue-said")).to_be_empty()


def test_an_upload_that_is_refused_says_so_and_can_be_tried_again(
    browser: Browser, gateway_url: str, playable: Path
) -> None:
    file = {"name": "a.webm", "mimeType": "video/webm", "buffer": playable.read_bytes()}
    with visiting(browser, gateway_url) as page:
        page.route("**/v1/analyses", problem(503, "The queues are full; try again as Retry-After says.", "1"))
        page.set_input_files("#files", file)
        expect(page.get_by_role("alert")).to_contain_text("The queues are full")
        page.unroute_all()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#analysis h1")).to_have_text("a.webm")


def test_an_upload_over_the_limit_is_refused_in_the_words_of_the_gateway(browser: Browser, gateway_url: str) -> None:
    file = {"name": "big.webm", "mimeType": "video/webm", "buffer": bytes(2_000_000)}
    with visiting(browser, gateway_url) as page:
        expect(page.locator("#limits")).to_have_text("Up to 1.0 MB and 2 h.")
        page.set_input_files("#files", [file, {**file, "name": "empty.webm", "buffer": b""}])
        expect(page.locator("#sending .fault")).to_have_count(2)
        expect(page.locator("#sending")).to_contain_text("over the size limit")
        expect(page.locator("#sending")).to_contain_text("The file is empty")


def test_an_address_that_may_not_be_asked_is_refused_with_the_reason(browser: Browser, gateway_url: str) -> None:
    with visiting(browser, gateway_url) as page:
        page.get_by_label("Or the address of a file").fill("http://10.0.0.1/a.mp4")
        page.get_by_role("button", name="Fetch it").click()
        expect(page.get_by_role("alert")).to_contain_text("10.0.0.1 is not a public address")


def test_several_files_are_sent_in_turn_with_their_tag(
    browser: Browser, gateway_url: str, gateway: httpx.Client, playable: Path
) -> None:
    files = [
        {"name": f"{n}.webm", "mimeType": "video/webm", "buffer": playable.read_bytes() + bytes([n])} for n in range(5)
    ]
    with visiting(browser, gateway_url) as page:
        page.get_by_text("Options").click()
        page.locator("#tag").fill("monday")
        page.set_input_files("#files", files)
        expect(page.locator("#sending a")).to_have_count(5)
        expect(page.locator("#queue a")).to_have_count(5)
    assert {a["tag"] for a in gateway.get("/v1/analyses").json()["analyses"]} == {"monday"}


def test_an_upload_shows_how_far_it_is_and_can_be_stopped(
    browser: Browser, gateway: httpx.Client, gateway_url: str, playable: Path
) -> None:
    file = {"name": "slow.webm", "mimeType": "video/webm", "buffer": playable.read_bytes().ljust(900_000, b"\0")}
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    with visiting(browser, gateway_url) as page:
        page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
        page.set_input_files("#files", file)
        bar = "document.querySelector('#sending progress')"
        until(page, f"{bar}?.value > 0 && {bar}.value < 1")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#sending li")).to_have_count(0)
    assert gateway.get("/v1/analyses").json()["analyses"] == []


def test_an_upload_that_is_through_does_not_take_the_screen_from_a_review(
    browser: Browser, gateway_url: str, shown: UUID, playable: Path
) -> None:
    file = {"name": "later.webm", "mimeType": "video/webm", "buffer": playable.read_bytes() + b"more"}
    with visiting(browser, gateway_url, at(shown)) as page:
        page.set_input_files("#files", file)
        accepted = page.locator("#sending a", has_text="accepted")
        expect(accepted).to_be_visible()
        expect(page.locator("#analysis h1")).to_have_text("holiday.webm")
        accepted.click()
        expect(page.locator("#analysis h1")).to_have_text("later.webm")


def test_a_clip_may_be_dropped_anywhere(browser: Browser, gateway_url: str) -> None:
    drop = """() => { const data = new DataTransfer(); data.items.add(new File(['x'], 'dropped.webm'));
        for (const type of ['dragenter', 'drop'])
            document.querySelector('.side').dispatchEvent(
                new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data })); }"""
    with visiting(browser, gateway_url) as page:
        page.evaluate(drop)
        expect(page.locator("#analysis h1", has_text="dropped.webm")).to_be_visible()


def test_with_keys_the_page_asks_for_one_and_keeps_it_for_the_tab(
    browser: Browser, gateway: httpx.Client, gateway_url: str, store: Store, shown: UUID
) -> None:
    secret = keys.new_secret()
    store.create_key(NewKey(tenant="default", name="desk", digest=digest_of(secret), scopes=["read", "submit"]))
    while gateway.get("/v1/detectors").status_code != 401:  # an open gateway looks for a first key now and then
        time.sleep(0.1)
    with visiting(browser, gateway_url, at(shown)) as page:
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("cw_wrong")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("not known")
        dialog.get_by_label("Key").fill(secret)
        dialog.get_by_role("button", name="Use this key").click()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
        until(page, "document.querySelector('video')?.readyState >= 1")
        until(page, "[...document.querySelectorAll('.evidence img')].every((i) => i.naturalWidth > 0)")
        page.reload()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
        assert page.evaluate("Object.values(localStorage).join()").find(secret) < 0
        assert secret not in str(page.context.storage_state())
        page.get_by_role("button", name="Forget the key").click()
        expect(dialog).to_be_visible()
