"""The command turns the detectors' out-of-fold scores into a bundle, and says of which data it is."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.fusion.bundle import read_bundle
from clipwarden.models.training import fusion
from clipwarden.models.training.fusion import CSV_COLUMNS, OWN, PICTURES, SHARES, SOUNDS, Material, parts, read_material
from clipwarden.models.training.fusion_card import Gain, card, gains
from clipwarden.models.training.head_table import unrelated, weights
from clipwarden.models.training.heads import by_fold
from clipwarden.shared.cli import main
from clipwarden.shared.contracts import Branch

CLIPS = PICTURES["forensic_score"]


def write(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([CSV_COLUMNS, *rows])


def gained(material: Material) -> list[Gain]:
    return gains(material.joint, material.kind, by_fold(material.joint, material.apart))


@pytest.fixture(autouse=True)
def _one_detector_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "PICTURES", {"forensic_score": CLIPS})
    monkeypatch.setattr(fusion, "SOUNDS", {"audio_prob_fake": SOUNDS["audio_prob_fake"]})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Weak scores of 160 clips, every fourth of them mute, and of 160 utterances."""
    rng = np.random.default_rng(2)
    fake = np.arange(160) // 4 % 2 == 0
    x = rng.normal(size=(160, 3)) + 0.8 * fake[:, None]
    clips = [(f"{k:03}.mp4", "fake" if fake[k] else "real", f"g{k // 4}", k // 4 // 2 % 4) for k in range(160)]
    write(tmp_path / CLIPS, [(*c, x[k, 0]) for k, c in enumerate(clips)])
    own, utterances = SOUNDS["audio_prob_fake"]
    write(tmp_path / own, [(c[0], "unknown", *c[2:], x[k, 1]) for k, c in enumerate(clips) if k % 4])
    said = [(f"{k}.flac", "spoof" if fake[k] else "bonafide", f"s{k // 4}", k // 4 // 2 % 4) for k in range(160)]
    write(tmp_path / utterances, [(*u, x[k, 2]) for k, u in enumerate(said)])
    return tmp_path


def test_scores_become_a_bundle_of_every_subset_and_a_card(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "fusion", "--runs", str(runs), "--out", str(runs / "b.json")]) == 0
    bundle, digest = read_bundle(runs / "b.json")
    assert digest in capsys.readouterr().out
    clips = {h.name: (h.metrics["clips"], h.metrics["fitted_clips"]) for h in bundle.heads}
    assert clips == {"forensic_mlp": (160, 440), "cqcc_cnn": (160, 440), "forensic_mlp+cqcc_cnn": (320, 440)}
    assert all(0 < h.metrics["slope_low"] < h.metrics["slope"] < h.metrics["slope_high"] for h in bundle.heads)
    assert len(bundle.unfitted) == 4
    text = card(bundle, gained(read_material(runs)))
    assert bundle.heads[0].data in text
    assert "| `low-false-positive` | `forensic_mlp+cqcc_cnn` |" in text
    assert "| composites | 320 |" in text


def test_nothing_is_installed_without_the_data_that_was_learnt_from(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = runs / "models/fusion/bundle.json"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(fusion, "bundle_path", lambda: installed)
    assert main(["train", "fusion", "--runs", str(runs), "--install", "--data", str(runs / "gone")]) == 2
    assert "manifest.csv cannot be read" in capsys.readouterr().err
    assert not installed.exists()


def test_a_head_of_one_branch_is_measured_on_labels_of_that_branch(runs: Path) -> None:
    material = read_material(runs)
    of_speech = material.apart[frozenset({Branch.AUDIO})]
    assert np.isnan(of_speech.x[:, 0]).all()
    assert not np.isnan(of_speech.x[:, 1]).any()
    rows = {row["path"]: row for row in csv.DictReader((runs / SOUNDS["audio_prob_fake"][1]).read_text().splitlines())}
    assert of_speech.fake.tolist() == [rows[path]["label"] == "spoof" for path in sorted(rows)]


def test_a_real_clip_is_counted_once_as_real_where_both_branches_speak(runs: Path) -> None:
    material = read_material(runs)
    joined = material.apart[frozenset({Branch.VISUAL, Branch.AUDIO})]
    assert np.sum(~joined.fake) == 80
    assert len(np.unique(joined.x[~joined.fake, 0])) == 80


def test_a_speaker_in_two_folds_is_not_learnt_from_where_it_is_tested(runs: Path) -> None:
    path = runs / SOUNDS["audio_prob_fake"][1]
    path.write_text(path.read_text().replace(",s1,", ",s0,"))  # of fold 0
    path.write_text(path.read_text().replace(",s2,", ",s0,"))  # of fold 1
    material = read_material(runs)
    numbers, counts = np.unique(material.apart[frozenset({Branch.AUDIO})].kin[:, 1], return_counts=True)
    number = numbers[counts.argmax()]
    heard = (material.joint.kin == number).any(axis=1)
    assert set(material.joint.fold[heard].tolist()) == {0, 1}
    left = unrelated(material.joint, 0, [material.joint, *material.apart.values()])
    assert not left[heard].any()
    assert left[~heard].tolist() == (material.joint.fold[~heard] != 0).tolist()


def test_joining_gains_where_either_part_may_be_made(runs: Path) -> None:
    material = read_material(runs)
    by_rows = {gain.rows: gain for gain in gained(material)}
    gain = by_rows["composites"].difference
    assert gain.value is not None
    assert gain.value > 0
    assert by_rows["composites"].count + by_rows[OWN].count == by_rows["all rows"].count == len(material.joint)


def test_every_kind_of_row_has_its_share_of_each_label(runs: Path) -> None:
    material = read_material(runs)
    weight = weights(material.joint)
    for kind, of in SHARES.items():
        for label, share in of.items():
            rows = np.array([k == kind for k in material.kind]) & (material.joint.fake == label)
            assert weight[rows].sum() / weight[material.joint.fake == label].sum() == pytest.approx(share, abs=0.04)


def test_a_composite_is_fake_if_either_part_is(runs: Path) -> None:
    material = read_material(runs)
    fake = {kind: set() for kind in SHARES}
    for kind, label in zip(material.kind, material.joint.fake.tolist(), strict=True):
        fake[kind].add(label)
    assert {kind: sorted(found) for kind, found in fake.items()} == {kind: sorted(of) for kind, of in SHARES.items()}


def test_the_digest_of_the_data_changes_with_any_score(runs: Path) -> None:
    before = read_material(runs).digest
    assert before == read_material(runs).digest
    path = runs / SOUNDS["audio_prob_fake"][0]
    path.write_text(path.read_text() + "new.mp4,unknown,g1,1,0.5\n")
    assert read_material(runs).digest != before


def test_a_clip_without_a_score_has_none_and_labels_come_from_the_first_column() -> None:
    row = {"label": "fake", "group": "a", "fold": "2", "score_logit": "1.5"}
    other = {"label": "bonafide", "group": "b", "fold": "0", "score_logit": "-0.5"}
    found = parts(
        {"forensic_score": {"1": {"path": "1", **row}, "2": {"path": "2", **row}}, "audio_prob_fake": {"2": other}}
    )
    np.testing.assert_array_equal([p.x for p in found], [[1.5, np.nan], [1.5, -0.5]])
    assert [(p.fake, p.group, p.fold) for p in found] == [(True, "a", 2)] * 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text("path,label\na,fake\n"), "no column"),
        (lambda path: path.write_text(path.read_text().replace("real", "REAL")), "labels other than"),
        (lambda path: path.write_text(path.read_text().replace("real", "fake")), "one class"),
    ],
)
def test_scores_that_allow_no_fit_are_a_sentence(
    runs: Path, spoil, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(runs / CLIPS)
    assert main(["train", "fusion", "--runs", str(runs), "--out", str(runs / "b.json")]) == 2
    assert words in capsys.readouterr().err
    assert not (runs / "b.json").exists()


def test_the_shipped_bundle_says_what_it_was_fitted_to() -> None:
    known = json.loads((Path(fusion.__file__).parent / "evaluation/seen.json").read_text())
    text = (Path(fusion.__file__).parents[1] / "cards/fusion.md").read_text()
    clips, utterances = (int(re.search(rf"\| `{name}` \| (\d+) ", text)[1]) for name in ("frame_stats", "speech_stats"))
    assert len(known["sets"][known["of"]["fusion"]]["files"]) == clips + utterances
