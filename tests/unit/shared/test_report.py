"""A report is one document that shows everybody's words as words, adds up, and stays within bounds."""

import hashlib
import math
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from clipwarden.shared.contracts import BranchResult, Label, OutcomeStatus, Reason
from clipwarden.shared.probe import EncoderNote, Provenance
from clipwarden.shared.report import charts, evidence
from clipwarden.shared.report.case import Case, Opinion
from clipwarden.shared.report.page import content_policy, render
from clipwarden.shared.report.svg import LEFT, RIGHT, clock
from clipwarden.shared.series import Series
from tests.reports import AT, case, probe, verdict

VOID = {"meta", "img", "br"}
MARKUP = '</title></style><script>alert(1)</script><img src=x onerror="alert(1)">{{ 7 * 7 }}&amp;'
HOSTILE = f"{MARKUP}\u202efdp.exe\x00\ud800"


class Page(HTMLParser):
    """The elements of a document, its text by element, and whether all that was opened was closed."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(text for tag, text in self.texts if tag != "style"))

    def of(self, tag: str) -> list[str]:
        return [text.strip() for of, text in self.texts if of == tag]


def page(told: Case) -> Page:
    return Page(render(told, AT))


def hostile(words: str) -> Case:
    """Whatever others may write into an analysis, these words."""
    ordinary = case(words)
    told = verdict(reasons=(Reason(code="leans_fake", text=words),), policy=words, head=words)
    notes = (EncoderNote(place="bitstream", key="encoder", text="x264 <b>core</b>"),)
    visual = ordinary.results[0].model_copy(update={"message": words})
    assert ordinary.passage
    return replace(
        ordinary,
        verdict=told,
        results=(visual, *ordinary.results[1:]),
        probe=probe().model_copy(
            update={"container": words, "video_codec": words, "provenance": Provenance(notes=notes)}
        ),
        passage=replace(ordinary.passage, tag=words, metadata={words: words, "deep": {words: [words]}}),
        opinions=(Opinion(words, words, words, AT),),
        sha256=words,
        pipeline=words,
    )


def test_the_document_loads_and_runs_nothing() -> None:
    told = page(case())

    assert told.open == []
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "use", "image"} & {
        t for t, _ in told.elements
    }
    for _, attributes in told.elements:
        assert not any(name.startswith("on") or name in {"style", "srcset"} for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#"))
    assert "url(" not in re.sub(r"url\(#\w+\)", "", render(case(), AT))


def test_the_policy_allows_the_style_of_the_document_and_no_other() -> None:
    told = page(case())
    (style,) = (text for tag, text in told.texts if tag == "style")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()

    policies = [a["content"] for t, a in told.elements if t == "meta" and a.get("http-equiv")]
    assert policies == [content_policy()]
    assert f"style-src 'sha256-{digest}'" in content_policy()
    assert content_policy().startswith("default-src 'none'; img-src data:;")


def test_the_words_of_others_are_words() -> None:
    told, harmless = page(hostile(HOSTILE)), page(hostile("words"))

    assert [(tag, sorted(attributes)) for tag, attributes in told.elements] == [
        (tag, sorted(attributes)) for tag, attributes in harmless.elements
    ]
    assert told.text.count("<script>alert(1)</script>") == harmless.text.count("words")
    assert "{{ 7 * 7 }}&amp;" in told.text
    assert "x264 <b>core</b>" in told.text


def test_what_cannot_be_seen_is_shown() -> None:
    document = render(hostile(HOSTILE), AT)

    assert "\\u202efdp.exe\\u0000\\ud800" in document
    assert not {"\u202e", "\x00", "\ud800"} & set(document)
    document.encode()


def test_pictures_are_inside_with_their_time_score_and_digest() -> None:
    told, made = page(case()), case()
    pictures = [a["src"] or "" for t, a in told.elements if t == "img"]
    contents = [b64decode(src.partition(",")[2]) for src in pictures]

    assert len(pictures) == 7
    assert pictures[0].startswith("data:image/jpeg;base64,")
    assert contents[0] == made.fetch(made.results[0], "forensic_mlp", "face-0.jpg")
    assert "0.25 s, score 0.50" in told.text
    assert all(hashlib.sha256(content).hexdigest() in told.of("code") for content in contents)


def test_pictures_without_room_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = case()
    monkeypatch.setattr(evidence, "MOST_BYTES", 12_000)
    album = evidence.album(made, {})
    shown = [plate for plates in album.plates.values() for plate in plates]
    assert 0 < sum(plate.size_bytes for plate in shown) <= 12_000
    assert album.left_out == 7 - len(shown)
    assert f"{album.left_out} more pictures had no room here" in page(made).text

    monkeypatch.setattr(evidence, "MOST_PICTURES", 3)
    assert set(evidence.album(made, {}).plates) <= {(r.branch, d.name) for r in made.results for d in r.detectors}
    assert evidence.album(made, {}).left_out >= 4


def test_what_is_no_longer_kept_is_said() -> None:
    told = page(replace(case(), fetch=lambda *_: None))

    assert "7 pictures are no longer kept." in told.text
    assert not [t for t, _ in told.elements if t == "img"]
    assert "forensic_mlp" in told.text


def test_scores_over_time_come_from_the_row_where_their_file_is_unreadable() -> None:
    made = case()
    spoilt = replace(made, fetch=lambda r, d, n: b"[]" if n == "series.json" else made.fetch(r, d, n))

    assert evidence.over_time(spoilt) == {}
    lines = [a["d"] or "" for t, a in page(spoilt).elements if a.get("class") == "steps"]
    assert [line.count("M") for line in lines] == [8, 8, 8]


@pytest.mark.parametrize("label", Label)
def test_the_verdict_is_said_in_words(label: Label) -> None:
    headings = page(case(verdict=verdict(label))).of("h2")

    assert headings[0] == {"fake": "Judged fake", "real": "Judged real", "inconclusive": "Inconclusive"}[label]


@pytest.mark.parametrize("weighed", [True, False])
def test_inconclusive_never_reads_as_real(weighed: bool) -> None:
    unknown = {"probability": None, "head": None, "baseline_logit": None, "contributions": (), "thresholds": None}
    told = page(case(verdict=verdict(Label.INCONCLUSIVE, **({} if weighed else unknown))))
    box = told.text[told.text.index("Inconclusive") : told.text.index("what this cannot say")]

    assert "Judged real" not in told.text
    assert "speaks for a genuine clip" not in told.text
    assert ("says neither that the clip is real nor that it is fake" if weighed else "may be either") in box
    assert ("Of 100 clips" in box) == weighed


def test_a_probability_is_told_with_what_it_means_where_fakes_are_rare() -> None:
    told = verdict()
    p = told.probability or 0
    rare = 0.01 * p / (0.01 * p + 0.99 * (1 - p))

    assert f"the same evidence would mean {100 * rare:.1f} %" in page(case(verdict=told)).text
    assert f"about {100 * p:.0f} are fake" in page(case(verdict=told)).text


def test_how_often_it_is_wrong_is_said_only_where_it_was_counted() -> None:
    counted, unknown = (page(case(verdict=v)).text for v in (verdict(), verdict(error_rates=None)))

    assert "13 (9%) were called fake as well" in counted
    assert "56 groups of related real ones" in counted
    assert "were called fake as well" not in unknown
    assert "one in a hundred" not in unknown


def test_bars_add_up_to_the_log_odds_of_the_probability() -> None:
    told = verdict()
    drawn = str(
        charts.balance(told.baseline_logit or 0, [charts.Step(c.detector, c.log_odds) for c in told.contributions])
    )
    numbers = [float(n) for n in re.findall(r">([+-]\d+\.\d\d)<", drawn)]
    bars = [
        (float(x), float(w))
        for x, w in re.findall(r'<rect class="[^"]+" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)
    ]

    p = told.probability or 0
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.02)
    assert numbers[-1] == pytest.approx(math.log(p / (1 - p)), abs=0.005)
    middle, at = (LEFT + RIGHT) / 2, (LEFT + RIGHT) / 2
    for (x, width), moved in zip(bars[:-1], numbers[:-1], strict=True):
        start, end = (x, x + width) if moved > 0 else (x + width, x)
        assert start == pytest.approx(at, abs=0.3)
        at = end
    x, width = bars[-1]
    assert (x, x + width) == pytest.approx((middle, at), abs=0.3)


def test_every_detector_is_told_with_score_weight_version_and_digest() -> None:
    made = case()
    cells = page(made).of("td")
    row = cells.index("cqcc_cnn")

    assert cells[row + 1 : row + 6] == [
        "1",
        "examined",
        f"{made.results[1].detectors[0].evidence.score:.3f}",
        "-0.35",
        "1.23 s",
    ]
    assert made.results[1].detectors[0].weights in page(made).of("code")


def test_what_was_skipped_and_what_is_not_installed_is_said() -> None:
    told = page(case())

    assert "Scene as a whole: skipped" in told.of("h3")
    assert "Nothing of this is installed." in told.text
    assert "switched off: clip_adapter." in told.text


def test_a_file_that_was_refused_gets_a_report_that_says_why() -> None:
    made = case(verdict=None, results=(), probe=None)
    assert made.passage
    told = page(replace(made, passage=replace(made.passage, state="rejected", sentence="The file is cut off.")))

    assert told.of("h2")[0] == "No verdict: rejected"
    assert "The file is cut off. There is no verdict on this file." in told.text


def test_a_picture_has_no_timeline() -> None:
    made = case()
    assert "When" in page(made).of("h2")
    assert "When" not in page(replace(made, probe=probe(0.0))).of("h2")


def test_a_branch_that_failed_says_so_beside_the_others() -> None:
    failed = BranchResult(branch="clip", status=OutcomeStatus.FAILED, code="timeout", message="It took too long.")
    made = case()
    told = page(replace(made, results=(*made.results[:3], failed)))

    assert "Scene as a whole: failed" in told.of("h3")
    assert "It took too long." in told.text


def test_two_hours_of_scores_stay_small() -> None:
    made = case(duration_s=7200.0, looks=1000)
    series = evidence.over_time(made)
    lanes = [charts.Lane(name, s.windows, s.looks, s.gaps) for (_, name), s in series.items()]

    drawn = str(charts.timeline(7200.0, lanes, ()))
    assert all(isinstance(s, Series) and len(s.looks) == 1000 for s in series.values())
    assert len(drawn) < 40_000 * len(lanes)
    assert ">30:00<" in drawn
    assert ">2:00:00<" in drawn


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (7.5, "7.5 s"),
        (4.964, "4.96 s"),
        (59.994, "59.99 s"),
        (65.4, "1:05"),
        (3750, "1:02:30"),
        (59.999, "1:00"),
    ],
)
def test_times_are_told_as_players_do(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
