"""The sums behind the page's drawings, run by Deno and compared with the same sums done here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipwarden.shared.report.evidence import CAPTIONS
from clipwarden.shared.report.wording import BRANCHES, HEADLINES

PAGE = Path(__file__).parents[3] / "api" / "page"


def computed(module: str, expression: str) -> Any:
    """What an expression over the exports of a module of the page comes to; NaN as null."""
    code = f"import * as m from {json.dumps((PAGE / module).as_uri())}; console.log(JSON.stringify({expression}))"
    done = subprocess.run(
        [Path(sys.executable).with_name("deno"), "eval", "--no-lock", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_column_of_the_timeline_is_as_high_as_the_highest_score_in_it() -> None:
    windows = [(0.0, 2.0, 0.2), (1.0, 3.0, 0.9), (6.0, 6.01, 0.4)]
    made = json.dumps([{"start_s": a, "end_s": b, "score": s} for a, b, s in windows])
    columns = computed("timeline.js", f"[...m.envelope({made}, 0, 8, 8)].map((v) => Number.isNaN(v) ? null : v)")

    highest = [max((s for a, b, s in windows if a < x + 1 and b > x), default=None) for x in range(8)]
    assert columns == [None if v is None else pytest.approx(v) for v in highest]


def test_a_face_is_between_two_looks_where_it_moved_to_and_nowhere_else() -> None:
    looks = json.dumps(
        [
            {"time_s": t, "frame": 0, "person": 0, "box": [x, 0, x + 10, 10], "score": s}
            for t, x, s in ((0.0, 0, 0.1), (1.0, 20, 0.9), (9.0, 50, 0.5))
        ]
    )
    moments = [0.0, 0.25, 0.75, 1.0, 5.0, 9.0, 12.0]
    found = computed("player.js", f"{moments}.map((t) => m.lookAt({looks}, t))")

    assert [f and f["box"][0] for f in found] == [0, 5, 15, 20, None, 50, None]
    assert [f and f["score"] for f in found] == [0.1, 0.1, 0.9, 0.9, None, 0.5, None]
    assert [f and f["exact"] for f in found] == [True, False, False, True, None, True, None]


def test_times_and_shares_read_as_a_person_writes_them() -> None:
    said = computed(
        "format.js",
        "[m.clock(62.58), m.clock(3723), m.clock(0.3 * 4), m.percent(0.9999), m.percent(0.001), m.percent(0.5),"
        " m.signed(-0.25), m.signed(1), m.bytes(999), m.bytes(2_147_483_648), m.about(4), m.about(600),"
        " m.plain('a' + String.fromCharCode(0x202e) + 'b')]",
    )

    minus, unknown = "\N{MINUS SIGN}", "\N{REPLACEMENT CHARACTER}"
    assert said[:6] == ["1:02.5", "1:02:03", "0:01.2", "over 99 %", "under 1 %", "50 %"]
    assert said[6:10] == [f"{minus}0.25", "+1.00", "999 bytes", "2.1 GB"]
    assert said[10:] == ["about 4 s", "about 10 min", f"a{unknown}b"]


def test_an_event_is_read_with_its_id_whatever_stands_around_it() -> None:
    block = json.dumps(': a comment\nid: abc\nevent: analysis\ndata: {"state": "done"}')

    assert computed("events.js", f"m.parsed({block})") == {"data": '{"state": "done"}', "event": "abc"}
    assert computed("events.js", "m.parsed('retry: 2000')") == {"data": "", "event": ""}


def test_the_page_and_the_report_say_the_same_of_branches_labels_and_pictures() -> None:
    assert computed("types.js", "m.BRANCH_NAMES") == BRANCHES
    assert computed("verdict.js", "m.LABELS") == {label: words for label, (words, _) in HEADLINES.items()}
    assert computed("evidence.js", "m.KINDS") == CAPTIONS


def test_the_score_of_a_face_is_that_of_its_look_and_no_other_picture_has_one() -> None:
    looks = json.dumps([{"time_s": t, "score": s} for t, s in ((1.0, 0.2), (1.0, 0.7), (1.5, 0.9))])
    groups = [[("heatmap", 1.0), ("face", 1.0)], [("mouth", 1.25)], [("frames", 1.5)], [("face", None)]]
    asked = json.dumps([[{"kind": kind, "time_s": t} for kind, t in group] for group in groups])

    assert computed("evidence.js", f"{asked}.map((group) => m.scoreOf(group, {looks}))") == [0.7, None, None, None]


def test_links_are_renewed_before_the_first_of_them_expires() -> None:
    refreshed = """await (async () => {
        let asked = 0;
        globalThis.fetch = () => (asked += 1, Promise.resolve(new Response("null")));
        const told = [];
        for (const left_s of [3600, 600, 60, -5]) {
            const expires = Math.floor(Date.now() / 1000) + left_s;
            const links = { self: "/a", report: `/r?expires=${expires + 900}`, media: `/m?expires=${expires}` };
            const desk = { id: "a", trouble: { hidden: true }, closing: new AbortController() };
            await m.Desk.prototype.refresh.call({ ...desk, analysis: { state: "done", links } });
            told.push(asked);
        }
        return told;
    })()"""

    assert computed("analysis.js", refreshed) == [0, 0, 1, 2]
    assert computed("analysis.js", "m.expiry({ self: '/a' })") is None


def test_an_answer_that_news_have_overtaken_is_not_shown() -> None:
    shown = """await (async () => {
        const shown = [];
        for (const news of [null, { state: "running", percent: 60 }]) {
            const desk = { id: "a", trouble: { hidden: true }, closing: new AbortController(),
                           analysis: { state: "running" }, show: ({ percent }) => shown.push(percent) };
            globalThis.fetch = () => {
                desk.analysis = news ?? desk.analysis;
                return Promise.resolve(new Response('{"percent": 30}'));
            };
            await m.Desk.prototype.refresh.call(desk);
        }
        return shown;
    })()"""

    assert computed("analysis.js", shown) == [30]
