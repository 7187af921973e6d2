"""Scores files made up from a seed, as the ledger would hold them."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.training.evaluation.ledger import Scores, columns, read_scores

DETECTORS = ("forensic_mlp", "cqcc_cnn")


@pytest.fixture
def scores_file(tmp_path: Path) -> Callable[..., Path]:
    def make(
        n: int = 120, seed: int = 0, name: str = "scores.csv", strength: float = 1.0, one_label: bool = False
    ) -> Path:
        rng = np.random.default_rng(seed)
        path = tmp_path / name
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns(DETECTORS), restval="")
            writer.writeheader()
            writer.writerows(row(rng, k, strength, one_label) for k in range(n))
        return path

    return make


def digest(k: int) -> str:
    return hashlib.sha256(str(k).encode()).hexdigest()


def row(rng: np.random.Generator, k: int, strength: float, one_label: bool) -> dict[str, object]:
    fake = k % 2 == 0 or one_label
    seen, heard = 1 / (1 + np.exp(-(rng.normal(size=2) + strength * (fake - 0.5))))
    fused = (seen + heard) / 2
    return {
        "key": f"k{k:04}",
        "pipeline": "sha256:0",
        "path": f"clips/{k:04}.mp4",
        "label": "fake" if fake else "real",
        "group": f"g{k // 4}",
        "generator": f"maker {k // 2 % 3}" if fake else "",
        "source": f"site {k // 8 % 4}",
        "identity": f"person {k // 4}",
        "codec": "h264",
        "channel": "none" if k % 3 else "gsm",
        "sha256": digest(k),
        "status": "ok",
        "kind": "video",
        "verdict": "fake" if fused > 0.6 else "real" if fused < 0.4 else "inconclusive",
        "probability": fused,
        "width": 320,
        "height": 240,
        "fps": 25,
        "seconds": 2 + rng.random(),
        "bit_rate": 1e5 * (1 + rng.random()),
        "size_bytes": round(1e5 * (1 + rng.random())),
        "has_audio": 1,
        "face_px": 60 + k % 300,
        "sharpness": 2 + rng.random(),
        "level_dbfs": -20 - rng.random(),
        "bandwidth_hz": 7000,
        "forensic_mlp:status": "ok",
        "forensic_mlp:score": seen,
        "forensic_score": seen,
        "cqcc_cnn:status": "ok" if k % 5 else "no_audio",
        "cqcc_cnn:score": heard if k % 5 else "",
        "audio_prob_fake": heard if k % 5 else "",
    }


@pytest.fixture
def scores(scores_file: Callable[..., Path]) -> Scores:
    return read_scores(scores_file())
