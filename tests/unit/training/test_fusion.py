"""The command turns the detectors' out-of-fold scores into a bundle, and says of which data it is."""

import csv
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.fusion.bundle import read_bundle
from clipwarden.models.training.fusion import CSV_COLUMNS, SCORES, UTTERANCES, card, check_utterances, joint_table
from clipwarden.shared.cli import main


def write(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([CSV_COLUMNS, *rows])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Weak scores of 160 clips, every fourth of them mute, and of 80 utterances."""
    rng = np.random.default_rng(2)
    fake = rng.random(160) < 0.5
    x = rng.normal(size=(160, 2)) + 0.8 * fake[:, None]
    clips = [(f"{k:03}.mp4", "fake" if fake[k] else "real", f"g{k // 4}", k // 4 % 4) for k in range(160)]
    write(tmp_path / SCORES["forensic_score"], [(*c, x[k, 0]) for k, c in enumerate(clips)])
    write(tmp_path / SCORES["audio_prob_fake"], [(*c, x[k, 1]) for k, c in enumerate(clips) if k % 4])
    speech = [(f"{k}.flac", "spoof" if fake[k] else "bonafide", f"s{k}", k % 4, x[k, 1]) for k in range(80)]
    write(tmp_path / UTTERANCES[1], speech)
    return tmp_path


def test_scores_become_a_bundle_of_every_subset_and_a_card(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "fusion", "--runs", str(runs), "--out", str(runs / "b.json")]) == 0
    bundle, digest = read_bundle(runs / "b.json")
    assert digest in capsys.readouterr().out
    clips = {h.name: (h.metrics["clips"], h.metrics["fitted_clips"]) for h in bundle.heads}
    assert clips == {"forensic_mlp": (160, 120), "cqcc_cnn": (120, 120), "forensic_mlp+cqcc_cnn": (120, 120)}
    assert len(bundle.unfitted) == 4
    text = card(bundle, check_utterances(bundle, runs))
    assert bundle.heads[0].data in text
    assert "| `low-false-positive` | `forensic_mlp` |" in text
    assert "On 80 development utterances" in text


def test_the_digest_of_the_data_changes_with_any_score(runs: Path) -> None:
    digests = set()
    for _ in range(2):
        assert main(["train", "fusion", "--runs", str(runs), "--out", str(runs / "b.json")]) == 0
        digests.add(read_bundle(runs / "b.json")[0].heads[0].data)
        path = runs / SCORES["audio_prob_fake"]
        path.write_text(path.read_text() + "new.mp4,fake,g1,1,0.5\n")
    assert len(digests) == 2


def test_a_clip_without_a_score_has_none_and_labels_come_from_the_first_column() -> None:
    row = {"label": "fake", "group": "a", "fold": "2", "score_logit": "1.5"}
    other = {"label": "bonafide", "group": "b", "fold": "0", "score_logit": "-0.5"}
    table = joint_table(
        {"forensic_score": {"1": {"path": "1", **row}, "2": {"path": "2", **row}}, "audio_prob_fake": {"2": other}}
    )
    np.testing.assert_array_equal(table.x, [[1.5, np.nan], [1.5, -0.5]])
    assert (table.fake.tolist(), table.fold.tolist()) == ([True, True], [2, 2])


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
    spoil(runs / SCORES["forensic_score"])
    assert main(["train", "fusion", "--runs", str(runs), "--out", str(runs / "b.json")]) == 2
    assert words in capsys.readouterr().err
    assert not (runs / "b.json").exists()
