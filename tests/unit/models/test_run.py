from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import cv2
import numpy as np
import pytest

from clipwarden.models.assess import Loaded
from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.faces import FaceDetector
from clipwarden.models.fusion.bundle import FusionBundle, Head, Linear, Thresholds
from clipwarden.models.fusion.policies import PREDEFINED
from clipwarden.models.run import Laboratory, examine, part, read_clip, restricted, skips
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import RejectCode, SkipCode
from clipwarden.shared.contracts import (
    AudioNeed,
    Branch,
    DetectorState,
    Evidence,
    FrameNeed,
    Label,
    Manifest,
    ManifestDetector,
    Needs,
    OutcomeStatus,
)
from clipwarden.shared.errors import ConfigError, MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media

DIGEST = "sha256:" + "0" * 64
FACES = FrameNeed(view="face", count=4, size_px=64, margin=0.3)
PICTURES = FrameNeed(view="frame", count=3, size_px=48)
SOUND = AudioNeed(seconds=2, min_seconds=0.5)


class Brightness:
    """A small real detector: the brighter the faces, the more suspicious."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="forensic_mlp", version="1", branch=Branch.VISUAL, needs=Needs(frames=FACES),
        features=("forensic_prob_mean",), parameters=0, source="tests",
    )  # fmt: skip

    @classmethod
    def load(cls, weights: WeightFile, device: str) -> Self:  # noqa: ARG003 - the protocol's
        return cls()

    def assess(self, clip: Clip) -> Evidence:
        score = float(clip.view(FACES).images.mean() / 255)
        return Evidence(score=score, features={"forensic_prob_mean": score})


def entry(name: str, branch: Branch, needs: Needs) -> ManifestDetector:
    return ManifestDetector(
        name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST, needs=needs
    )


MANIFEST = Manifest(
    detectors=(
        entry("forensic_mlp", Branch.VISUAL, Needs(frames=FACES)),
        entry("ears", Branch.AUDIO, Needs(audio=SOUND)),
        entry("scene", Branch.CLIP, Needs(frames=PICTURES)),
    ),
    faces="test",
    fusion=DIGEST,
)


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits()) as opened:
        yield opened


@pytest.fixture(scope="module")
def faces() -> FaceDetector:
    return FaceDetector()


def prepared(path: Path, fence: Fence, faces: FaceDetector) -> tuple[Clip, Mapping[Branch, SkipCode]]:
    """The clip, and what planning and looking rule out together."""
    read = read_clip(fence, path, MANIFEST, faces)
    return read.clip, read.skipped


def test_a_talking_head_gives_every_view(talking_head: Path, fence: Fence, faces: FaceDetector) -> None:
    clip, skipped = prepared(talking_head, fence, faces)
    assert skipped == {Branch.LIPSYNC: SkipCode.NO_WEIGHTS}
    seen, whole = clip.view(FACES), clip.view(PICTURES)
    assert seen.images.shape == (4, 64, 64, 3)
    assert whole.images.shape == (3, 48, 48, 3)
    assert whole.boxes.tolist() == [[0, 0, 320, 320]] * 3
    assert len(clip.sounds[16_000]) == 2 * 16_000
    assert clip.duration_s == pytest.approx(3, abs=0.1)


def test_faces_are_where_the_portrait_has_one(talking_head: Path, fence: Fence, faces: FaceDetector) -> None:
    seen = prepared(talking_head, fence, faces)[0].view(FACES)
    centres = (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
    assert np.abs(centres - np.array([175, 120])).max() < 40
    assert seen.times_s.tolist() == sorted(seen.times_s.tolist())


def test_boxes_are_in_pixels_of_the_file_when_frames_are_scaled(
    tmp_path: Path, fence: Fence, faces: FaceDetector
) -> None:
    path = media.write_still(tmp_path / "large.jpg", next(media.faces(1, 6000, 6000)))
    box = prepared(path, fence, faces)[0].view(FACES).boxes[0]
    assert 1100 < box[2] - box[0] < 3700
    assert box[2] > 3000


def test_a_clip_without_a_face_skips_what_needs_one(faceless_clip: Path, fence: Fence, faces: FaceDetector) -> None:
    clip, skipped = prepared(faceless_clip, fence, faces)
    assert skipped == {Branch.LIPSYNC: SkipCode.NO_WEIGHTS, Branch.VISUAL: SkipCode.NO_FACE}
    assert len(clip.view(FACES)) == 0
    assert len(clip.view(PICTURES)) == 3


def test_a_silent_clip_skips_audio(silent_clip: Path, fence: Fence, faces: FaceDetector) -> None:
    assert prepared(silent_clip, fence, faces)[1][Branch.AUDIO] is SkipCode.SILENT_AUDIO


def test_a_clip_without_sound_skips_audio(mute_clip: Path, fence: Fence, faces: FaceDetector) -> None:
    assert prepared(mute_clip, fence, faces)[1][Branch.AUDIO] is SkipCode.NO_AUDIO


def test_faces_below_forty_pixels_are_too_small(talking_head: Path, fence: Fence, faces: FaceDetector) -> None:
    clip = prepared(talking_head, fence, faces)[0]
    seen = clip.view(FACES)
    shrunk = Clip({**clip.views, FACES.key: replace(seen, boxes=seen.boxes / 10)}, clip.sounds, clip.duration_s)
    assert skips(shrunk, MANIFEST, [Branch.VISUAL]) == {Branch.VISUAL: SkipCode.FACE_TOO_SMALL}


def test_a_part_holds_what_its_branch_reads_and_no_more(talking_head: Path, fence: Fence, faces: FaceDetector) -> None:
    clip = prepared(talking_head, fence, faces)[0]
    seen, heard = part(clip, MANIFEST.ready(Branch.VISUAL)), part(clip, MANIFEST.ready(Branch.AUDIO))
    assert (set(seen.views), set(seen.sounds)) == ({FACES.key}, set())
    assert (set(heard.views), len(heard.sounds[16_000])) == (set(), 32_000)


def laboratory(fence: Fence, faces: FaceDetector) -> Laboratory:
    only_eyes = MANIFEST.model_copy(update={"detectors": MANIFEST.detectors[:1]})
    head = Head(
        name="visual", feature_cols=("forensic_prob_mean",), temperature=1.0, fitted_on="tests", metrics={},
        model=Linear(intercept=0.0, coef=(2.0,), mean=(0.0,), scale=(1.0,)),
        thresholds=dict.fromkeys(PREDEFINED, Thresholds(real=0.2, fake=0.8)),
    )  # fmt: skip
    bundle = FusionBundle(format=1, policy="balanced", policies=PREDEFINED, heads=(head,))
    return Laboratory(fence, faces, only_eyes, bundle, {Branch.VISUAL: (Loaded(MANIFEST.detectors[0], Brightness()),)})


def test_one_file_becomes_one_verdict(talking_head: Path, fence: Fence, faces: FaceDetector) -> None:
    found = examine(talking_head, laboratory(fence, faces))
    results = {r.branch: r for r in found.results}
    assert list(results) == list(Branch)
    assert results[Branch.VISUAL].status is OutcomeStatus.OK
    assert results[Branch.AUDIO].code == SkipCode.NO_WEIGHTS
    score = results[Branch.VISUAL].detectors[0].evidence
    assert score is not None
    logit = 2 * CATALOGUE["forensic_prob_mean"].column(score.score)
    assert found.verdict.probability == pytest.approx(1 / (1 + np.exp(-logit)))
    assert (found.verdict.head, found.verdict.coverage) == ("visual", 1.0)


def test_without_evidence_the_verdict_is_inconclusive(wav: Path, fence: Fence, faces: FaceDetector) -> None:
    verdict = examine(wav, laboratory(fence, faces)).verdict
    assert (verdict.label, verdict.probability) == (Label.INCONCLUSIVE, None)


def test_a_bad_file_is_refused_and_the_next_is_examined(
    hostile: dict[str, Path], talking_head: Path, fence: Fence, faces: FaceDetector
) -> None:
    with pytest.raises(MediaError) as caught:
        examine(hostile["truncated"], laboratory(fence, faces))
    assert caught.value.code is RejectCode.TRUNCATED
    assert examine(talking_head, laboratory(fence, faces)).verdict.head == "visual"


@pytest.mark.parametrize("kind", ["16 bits", "grey", "grey of 16 bits"])
def test_a_picture_of_another_depth_is_judged_as_its_like_of_three_times_8_bits(
    tmp_path: Path, fence: Fence, faces: FaceDetector, kind: str
) -> None:
    shown = next(media.faces(1))[..., ::-1]
    if kind.startswith("grey"):
        shown = np.repeat(cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
    deep = shown.astype(np.uint16) * 257 if kind.endswith("16 bits") else shown
    for name, picture in (("usual", shown), ("other", deep[..., 0] if kind.startswith("grey") else deep)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    usual, other = (examine(tmp_path / f"{n}.png", laboratory(fence, faces)).results[0] for n in ("usual", "other"))
    expected, found = usual.detectors[0].evidence, other.detectors[0].evidence
    assert expected is not None
    assert found is not None
    assert found.score == pytest.approx(expected.score, abs=0.01)


def test_detectors_that_were_not_chosen_are_disabled() -> None:
    states = {d.name: d.state for d in restricted(MANIFEST, frozenset({"ears"})).detectors}
    assert states == {
        "forensic_mlp": DetectorState.DISABLED,
        "ears": DetectorState.READY,
        "scene": DetectorState.DISABLED,
    }
    assert restricted(MANIFEST, frozenset()) == MANIFEST


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(ConfigError, match="no such ready detector: nose; ready are ears"):
        restricted(MANIFEST, frozenset({"nose"}))
