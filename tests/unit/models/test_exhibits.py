"""What there is to look at: pictures that show what they say, files within their bounds, rows that stay small."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from clipwarden.models.assess import Loaded, assess
from clipwarden.models.brief import FINDINGS_BYTES, ROW_BYTES, brief, joined
from clipwarden.models.detector import DetectorSpec, detector_class
from clipwarden.models.exhibits import FILES_BYTES, MOST_PICTURES, SIDE_PX, Shown, exhibit
from clipwarden.models.faces import crop
from clipwarden.models.sights import Picture, looks, square, worst
from clipwarden.models.visual.forensic_mlp import residual
from clipwarden.models.weights import state_of, verified, weights_table
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    DetectorState,
    Evidence,
    ExhibitKind,
    FrameNeed,
    Gap,
    Kernel,
    ManifestDetector,
    Needs,
    OutcomeStatus,
    Window,
)
from clipwarden.shared.errors import WorkerFault
from tests import networks
from tests.media import speech

SECONDS = 4.0
DIGEST = f"sha256:{'0' * 64}"
FRAMES = {"temporal_3dcnn": 20, "siglip_lstm": 40, "av_sync": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@cache
def _loaded(name: str, folder: Path) -> Loaded:
    """A detector with its own weights, or with random ones."""
    kind = detector_class(name)
    ready = state_of(weights_table()[name]) is DetectorState.READY
    weights = verified(name) if ready else networks.write_weights(name, folder)
    return Loaded(_entry(name, kind.spec.branch, kind.spec.needs), kind.load(weights, "cpu"))


def _entry(name: str, branch: Branch, needs: Needs) -> ManifestDetector:
    return ManifestDetector(
        name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST, needs=needs
    )


def _clip(name: str) -> Clip:
    """Portraits that differ, each with a face of its own place, and speech."""
    needs = detector_class(name).spec.needs
    views = {}
    if needs.frames:
        n, side = FRAMES.get(name, 6), needs.frames.size_px
        portrait = cv2.resize(data.astronaut()[:256, 100:356], (side, side))
        grain = np.random.default_rng(1).normal(0, 1, (n, side, side, 3)) * np.linspace(2, 20, n)[:, None, None, None]
        boxes = np.array([[10 + i, 20, 90 + i, 110] for i in range(n)], np.float32)
        images = np.clip(portrait + grain, 0, 255).astype(np.uint8)
        landmarks = np.tile(np.array([[30, 50], [60, 50], [45, 70], [35, 90], [55, 90]], np.float32), (n, 1, 1))
        views[needs.frames.key] = View.of(images, np.linspace(0, SECONDS * (n - 1) / n, n), boxes, landmarks=landmarks)
    sounds = {needs.audio.sample_rate_hz: Sound.whole(speech(SECONDS))} if needs.audio else {}
    return Clip(views=views, sounds=sounds, duration_s=SECONDS)


@dataclass(frozen=True)
class Case:
    """A detector's finding, and what is shown of it."""

    clip: Clip
    loaded: Loaded
    evidence: Evidence
    shown: Shown

    @property
    def need(self) -> FrameNeed:
        return self.loaded.entry.needs.frames

    @property
    def view(self) -> View:
        return self.clip.view(self.need)


@cache
def _shown(name: str, folder: Path) -> Case:
    clip, loaded = _clip(name), _loaded(name, folder)
    result = assess(loaded.entry.branch, clip, (loaded,))
    return Case(clip, loaded, result.detectors[0].evidence, exhibit(clip, result, (loaded,)))


def _exhibits(shown: Shown) -> list:
    evidence = shown.result.detectors[0].evidence
    assert evidence is not None
    return list(evidence.exhibits)


def _decoded(shown: Shown, name: str, detector: str):
    content = np.frombuffer(shown.files[f"{detector}/{name}"], np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_UNCHANGED)


EXPECTED = {
    "forensic_mlp": {"series", "face", "residual"},
    "tiny_gate": {"series", "face", "heatmap"},
    "temporal_3dcnn": {"series", "frames"},
    "siglip_lstm": {"series", "frames"},
    "cqcc_cnn": {"series", "spectrogram"},
    "mel_resnet18": {"series", "spectrogram"},
    "av_sync": {"series", "mouth", "spectrogram"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finding_can_be_looked_at(name, folder):
    shown = _shown(name, folder).shown
    exhibits = _exhibits(shown)
    assert {e.kind for e in exhibits} == EXPECTED[name]
    assert {f"{name}/{e.name}": e.size_bytes for e in exhibits} == {k: len(v) for k, v in shown.files.items()}
    for one in exhibits:
        if one.kind is not ExhibitKind.SERIES:
            picture = _decoded(shown, one.name, name)
            assert max(picture.shape[:2]) <= SIDE_PX
            assert picture.std() > 1
            assert one.time_s is not None


def test_a_heat_map_is_the_gates_word_on_each_place_and_covers_the_crop(folder):
    case = _shown("tiny_gate", folder)
    highest = max(range(len(case.view)), key=lambda row: case.evidence.looks[row].score)
    expected = 255 / (1 + np.exp(-case.loaded.detector.maps(case.view.images[highest : highest + 1])[0]))
    heat = next(e for e in _exhibits(case.shown) if e.kind is ExhibitKind.HEATMAP)
    assert np.abs(_decoded(case.shown, heat.name, "tiny_gate") - expected).max() <= 0.5001
    assert heat.time_s == pytest.approx(case.view.times_s[highest], abs=1e-3)
    assert heat.box == square(case.view, highest, case.need)


def test_the_faces_shown_are_those_with_the_highest_scores(folder):
    case = _shown("forensic_mlp", folder)
    best = sorted(range(len(case.view)), key=lambda row: -case.evidence.looks[row].score)[:3]
    faces = [e for e in _exhibits(case.shown) if e.kind is ExhibitKind.FACE]
    assert [f.time_s for f in faces] == pytest.approx([case.view.times_s[row] for row in best], abs=1e-3)
    for face, row in zip(faces, best, strict=True):
        seen = _decoded(case.shown, face.name, "forensic_mlp")[..., ::-1].astype(int)
        assert np.abs(seen - case.view.images[row]).mean() < 12


def test_a_residual_is_bright_where_a_picture_is_noisy():
    picture = np.full((64, 64, 3), 120, np.uint8)
    picture[:, 32:] += np.random.default_rng(0).integers(0, 9, (64, 32, 1), dtype=np.uint8)
    shown = residual(picture)
    assert (shown[:, :30] == 128).all()
    assert shown[:, 34:].std() > 10


def test_a_series_holds_every_score_with_its_time_and_box(folder):
    case = _shown("forensic_mlp", folder)
    series = json.loads(case.shown.files["forensic_mlp/series.json"])
    assert [look["time_s"] for look in series["looks"]] == pytest.approx(case.view.times_s.tolist())
    assert [look["box"] for look in series["looks"]] == case.view.boxes.astype(int).tolist()
    scores = [window.score for window in case.evidence.windows]
    assert [look["score"] for look in series["looks"]] == pytest.approx(scores, abs=1e-4)


def test_sync_is_shown_over_every_offset_that_the_sound_reaches(folder):
    case = _shown("av_sync", folder)
    (curve,) = json.loads(case.shown.files["av_sync/series.json"])["curves"]
    assert (curve["name"], curve["axis"]) == ("in_sync_by_offset", "offset_s")
    assert curve["x"] == pytest.approx([k * 0.032 for k in range(-16, 17)])
    best = curve["x"][int(np.argmax(curve["y"]))]
    assert best == pytest.approx(case.evidence.facts["offset_s"])


@pytest.mark.parametrize(("view", "margin"), [("face", 0.0), ("face", 0.3), ("face", 0.77)])
def test_a_box_is_what_was_cut_out_of_the_frame(view, margin):
    frame = np.random.default_rng(3).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    box = np.array([61.3, 72.8, 104.9, 121.2], np.float32)
    need = FrameNeed(view=view, count=1, size_px=64, margin=margin)
    rows = View.of(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1), box[None])
    x1, y1, x2, y2 = square(rows, 0, need)
    np.testing.assert_array_equal(crop(frame, box.astype(float), x2 - x1, margin, Kernel.CV2_AREA), frame[y1:y2, x1:x2])


def test_of_two_people_the_suspicious_one_is_shown():
    view = View.of(
        np.zeros((4, 8, 8, 3), np.uint8),
        np.array([0.0, 0.0, 1.0, 1.0]),
        frames=np.array([0, 0, 25, 25]),
        people=np.array([0, 1, 0, 1], np.int16),
    )
    assert worst(view, looks(view, np.array([0.1, 0.9, 0.2, 0.8])), most=2) == [1, 3]


class Painter:
    """Shows as many pictures as it is told, each as hard to compress as can be."""

    spec: ClassVar[DetectorSpec]

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self._count, self._error = count, error

    def assess(self, clip: Clip) -> Evidence:  # noqa: ARG002 - the protocol's
        return Evidence(score=0.5, features={})

    def pictures(self, clip: Clip, evidence: Evidence) -> list[Picture]:  # noqa: ARG002 - the protocol's
        if self._error:
            raise self._error
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (self._count, 300, 400), dtype=np.uint8)
        return [Picture(ExhibitKind.HEATMAP, one, time_s=0.0) for one in noise]


def _painted(detectors: int, pictures: int, error: Exception | None = None) -> Shown:
    loaded = [Loaded(_entry(f"p{k}", Branch.VISUAL, Needs()), Painter(pictures, error)) for k in range(detectors)]
    return exhibit(Clip(), assess(Branch.VISUAL, Clip(), loaded), loaded)


def test_a_detector_shows_eight_pictures_at_most_none_wider_than_256():
    shown = _painted(1, 30)
    pictures = [name for name in shown.files if name.endswith(".png")]
    assert len(pictures) == MOST_PICTURES
    assert _decoded(shown, pictures[0].partition("/")[2], "p0").shape == (192, 256)


def test_a_branch_keeps_half_a_mebibyte_at_most_and_every_detector_gets_its_turn():
    shown = _painted(9, 8)
    assert FILES_BYTES / 2 < sum(map(len, shown.files.values())) <= FILES_BYTES
    assert {name.partition("/")[0] for name in shown.files if name.endswith(".png")} == {f"p{k}" for k in range(9)}
    assert len(shown.result.as_row().encode()) <= ROW_BYTES


def test_a_picture_that_cannot_be_made_costs_no_finding():
    shown = _painted(1, 1, ValueError("no"))
    assert shown.result.status is OutcomeStatus.OK
    assert set(shown.files) == {"p0/series.json"}


@pytest.mark.parametrize("error", [WorkerFault("gone"), RuntimeError("CUDA error: an illegal memory access")])
def test_a_sick_device_is_no_missing_picture(error):
    with pytest.raises(WorkerFault):
        _painted(1, 1, error)


SCORES = st.floats(0, 1)
TIMES = st.floats(0, 7200)


def _stretch(pair, **rest):
    return {"start_s": min(pair), "end_s": max(pair), **rest}


WINDOWS = st.builds(lambda t, s: Window(**_stretch(t, score=s)), st.tuples(TIMES, TIMES), SCORES)
GAPS = st.builds(lambda t: Gap(**_stretch(t, code=SkipCode.NO_SPEECH)), st.tuples(TIMES, TIMES))
EVIDENCE = st.builds(
    Evidence,
    score=SCORES,
    features=st.dictionaries(st.sampled_from([f"efficientnet_lite0_prob_{k}" for k in range(5)]), SCORES),
    windows=st.lists(WINDOWS, max_size=150).map(tuple),
    gaps=st.lists(GAPS, max_size=60).map(tuple),
)
OUTCOMES = st.one_of(
    st.builds(lambda e: {"status": OutcomeStatus.OK, "evidence": e}, EVIDENCE),
    st.builds(lambda m: {"status": OutcomeStatus.FAILED, "code": "internal", "message": m}, st.text(max_size=2000)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(OUTCOMES, min_size=1, max_size=10), st.text(max_size=2000))
def test_a_row_stays_small_whatever_was_found(outcomes, message):
    detectors = tuple(
        DetectorOutcome(name=f"frame_efficientnet_lite{k}", version="1", weights=DIGEST, elapsed_ms=10**6, **each)
        for k, each in enumerate(outcomes)
    )
    ok = any(o["status"] is OutcomeStatus.OK for o in outcomes)
    why = {} if ok else {"code": "internal", "message": message}
    status = OutcomeStatus.OK if ok else OutcomeStatus.FAILED
    result = BranchResult(branch=Branch.VISUAL, status=status, detectors=detectors, **why)
    short = brief(result)
    assert len(short.as_row().encode()) <= FINDINGS_BYTES + 1_500
    assert BranchResult.model_validate_json(short.as_row()) == short
    loaded = [Loaded(_entry(d.name, Branch.VISUAL, Needs()), Painter(8)) for d in detectors]
    shown = exhibit(Clip(), result, loaded)
    assert len(shown.result.as_row().encode()) <= ROW_BYTES
    assert [d.evidence and d.evidence.score for d in shown.result.detectors] == [
        d.evidence and d.evidence.score for d in detectors
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=60), st.integers(1, 12))
def test_joined_windows_cover_what_they_were_made_of_and_invent_no_score(windows, most):
    found = joined(windows, most)
    assert len(found) == min(most, len(windows))
    assert found == tuple(sorted(found, key=lambda w: w.start_s))
    for window in windows:
        assert any(w.start_s <= window.start_s + 1e-3 and window.start_s - 1e-3 <= w.end_s for w in found)
    assert min(w.score for w in windows) - 1e-4 <= min(w.score for w in found)
    assert max(w.score for w in found) <= max(w.score for w in windows) + 1e-4


def test_joining_keeps_a_short_suspicion_apart_from_the_calm_about_it():
    scores = [0.1, 0.12, 0.11, 0.95, 0.13, 0.1, 0.12, 0.11]
    found = joined([Window(start_s=k, end_s=k + 1, score=s) for k, s in enumerate(scores)], 3)
    assert [(w.start_s, w.end_s) for w in found] == [(0, 3), (3, 4), (4, 8)]
    assert found[1].score == 0.95
