"""The run that makes the CQCC network: five folds by source and family, then the network on everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from clipwarden.models.audio.cqcc_cnn import CqccCnn, CqccNetwork, frame_windows
from clipwarden.models.training.cqcc_fit import CqccRecipe, Material, fit_cqcc
from clipwarden.models.training.networks import trained
from clipwarden.models.training.run_folder import RunFolder, begin_run
from clipwarden.models.training.speech_data import (
    COPIES,
    FOLDS,
    CqccCache,
    Utterance,
    read_utterances,
    training_utterances,
    weights_of,
)
from clipwarden.models.training.speech_report import speech_facts, speech_metrics, utterance_row
from clipwarden.models.training.video_data import read_clips
from clipwarden.models.training.video_sound import score_sound

NAME: Final = "cqcc_cnn"


def train_cqcc(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on after its last finished network."""
    torch.set_num_threads(jobs)
    recipe = CqccRecipe()
    run = begin_run(out, NAME, seed, recipe, data / "audio", copies=COPIES)
    utterances = read_utterances(data)
    versions = _features(data, run, utterances, seed, progress)
    scores = []
    for fold in range(FOLDS):
        chosen = training_utterances(utterances, fold)
        network = _network(
            run, f"fold-{fold}", [utterances[k] for k in chosen], [versions[k] for k in chosen], seed, progress
        )
        scores += [
            utterance_row(u, _logit(network, v[0]))
            for u, v in zip(utterances, versions, strict=True)
            if u.test_fold == fold
        ]
    final = _network(run, NAME, utterances, versions, seed, progress)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", speech_metrics(utterances, scores, seed))
    run.write_json("data.json", speech_facts(data, utterances))
    clips = [c for c in read_clips(data) if c.audio_label != "none"]
    sounds = score_sound(data, clips, final, jobs)
    run.write_scores("scores_video.csv", progress.track(sounds, total=len(clips), description="sound of clips"))
    return run


def _features(
    data: Path, run: RunFolder, utterances: list[Utterance], seed: int, progress: Progress
) -> list[list[NDArray[np.float32]]]:
    cache = CqccCache(data, run.folder("cqcc"), seed)
    for _ in progress.track(cache.fill(utterances), total=len(utterances), description="CQCC"):
        pass
    return [[cache.rows(u, version) for version in range(COPIES + 1)] for u in utterances]


def _network(
    run: RunFolder,
    name: str,
    utterances: Sequence[Utterance],
    versions: list[list[NDArray[np.float32]]],
    seed: int,
    progress: Progress,
) -> CqccCnn:
    """Train a network, or read it if the run already has it."""

    def fit() -> tuple[CqccNetwork, list[float]]:
        recipe = CqccRecipe()
        material = Material(versions, np.array([u.fake for u in utterances]), weights_of(utterances))
        torch.manual_seed(seed)
        network = CqccNetwork(recipe.dropout)
        steps = fit_cqcc(network, material, recipe, seed)
        return network, list(progress.track(steps, total=recipe.steps, description=name))

    return CqccCnn.load(trained(run, name, fit, {"detector": NAME, "seed": str(seed)}), "cpu")


def _logit(detector: CqccCnn, rows: NDArray[np.float32]) -> float:
    """Mean logit over the windows, as in use; the corpus is speech, so none is left out."""
    return float(np.mean(detector.predict_windows(rows, frame_windows(rows.shape[1] - 1))))
