"""The run that makes the speech statistics: five folds by source and family, then the discriminant on everything."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from clipwarden.models.audio.speech_stats import SpeechDiscriminant, SpeechStats
from clipwarden.models.audio.statistics import COUNT, describe
from clipwarden.models.checkpoint import save_from
from clipwarden.models.training.channel import through_channel
from clipwarden.models.training.discriminant import best_slope, fit_direction, scaling
from clipwarden.models.training.run_folder import RunFolder, begin_run, cache_name
from clipwarden.models.training.speech_data import (
    COPIES,
    FOLDS,
    Utterance,
    read_utterances,
    read_wave,
    training_utterances,
    weights_of,
)
from clipwarden.models.training.speech_report import protocol_metrics, speech_facts, speech_metrics, utterance_row
from clipwarden.models.training.video_data import read_clips
from clipwarden.models.training.video_sound import score_sound
from clipwarden.models.weights import WeightFile, file_digest

NAME: Final = "speech_stats"


@dataclass(frozen=True, slots=True)
class StatsRecipe:
    """`shrinkage` is the weight of the sphere that the scatter within labels is mixed with."""

    shrinkage: float = 0.65


@dataclass(frozen=True, slots=True)
class Described:
    """numbers: float32 (utterances, versions, 3444), version 0 the utterance itself; weights sum to one."""

    numbers: NDArray[np.float32]
    fake: NDArray[np.bool_]
    weights: NDArray[np.float64]


def train_speech_stats(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on with the numbers that it has."""
    torch.set_num_threads(jobs)
    recipe = StatsRecipe()
    run = begin_run(out, NAME, seed, recipe, data / "audio", copies=COPIES)
    utterances = read_utterances(data)
    folder = run.folder("numbers")
    filled = _fill(data, folder, utterances, seed, jobs)
    for _ in progress.track(filled, total=len(utterances), description="statistics"):
        pass
    numbers = np.stack([np.load(folder / f"{cache_name(u.path)}.npy") for u in utterances])
    logits, headline = (_out_of_fold(utterances, numbers, recipe, apart, progress) for apart in (True, False))
    slope = best_slope(logits[:, 0], np.array([u.fake for u in utterances]), weights_of(utterances))
    scores = [utterance_row(u, float(slope * logit)) for u, logit in zip(utterances, logits[:, 0], strict=True)]
    final = _saved(run, fit_discriminant(_described(utterances, numbers), recipe, slope), seed)
    run.write_scores("scores.csv", scores)
    run.write_json(
        "metrics.json",
        {
            **protocol_metrics(utterances, logits, seed),
            **speech_metrics(utterances, scores, seed),
            "headline": protocol_metrics(utterances, headline, seed),
        },
    )
    run.write_json("data.json", speech_facts(data, utterances))
    clips = [c for c in read_clips(data) if c.audio_label != "none"]
    sounds = score_sound(data, clips, final, jobs)
    run.write_scores("scores_video.csv", progress.track(sounds, total=len(clips), description="sound of clips"))
    return run


def fit_discriminant(described: Described, recipe: StatsRecipe, slope: float = 1.0) -> SpeechDiscriminant:
    """The linear discriminant with shrunken scatter, its logits times `slope`; both labels equally likely."""
    versions = described.numbers.shape[1]
    fake = np.repeat(described.fake, versions)
    weights = np.repeat(described.weights / described.weights.sum(), versions) / versions
    network = SpeechDiscriminant()
    rows = _standardised(network, described.numbers.reshape(len(fake), -1), weights)
    found = fit_direction(rows, fake, weights, recipe.shrinkage)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(slope * found.weight)[None])
        network.fc.bias.fill_(slope * found.bias)
    return network.eval()


def _standardised(
    network: SpeechDiscriminant, numbers: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rows as the network weighs them, its scaler set to their weighted mean and spread."""
    tamed = (np.sign(numbers) * np.log1p(np.abs(numbers))).astype(np.float64)
    mean, scale = scaling(tamed, weights)
    network.scaler_mean.copy_(torch.from_numpy(mean))
    network.scaler_scale.copy_(torch.from_numpy(scale))
    with torch.inference_mode():
        return network.standardised(torch.from_numpy(numbers)).numpy().astype(np.float64)


def _described(utterances: Sequence[Utterance], numbers: NDArray[np.float32]) -> Described:
    return Described(numbers, np.array([u.fake for u in utterances]), weights_of(utterances))


def _out_of_fold(
    utterances: Sequence[Utterance],
    numbers: NDArray[np.float32],
    recipe: StatsRecipe,
    speakers_apart: bool,
    progress: Progress,
) -> NDArray[np.float64]:
    """Logits (utterances, versions) by the discriminant that knows neither source nor family nor, apart, speaker."""
    logits = np.empty(numbers.shape[:2])
    for fold in progress.track(range(FOLDS), description="folds"):
        chosen = training_utterances(utterances, fold, speakers_apart)
        tested = [k for k, u in enumerate(utterances) if u.test_fold == fold]
        network = fit_discriminant(_described([utterances[k] for k in chosen], numbers[chosen]), recipe)
        with torch.inference_mode():
            logits[tested] = network(torch.from_numpy(numbers[tested].reshape(-1, COUNT))).reshape(len(tested), -1)
    return logits


def _saved(run: RunFolder, network: SpeechDiscriminant, seed: int) -> SpeechStats:
    path = run.path / f"{NAME}.safetensors"
    save_from(network, path, {"detector": NAME, "seed": str(seed)})
    return SpeechStats.load(WeightFile(path, file_digest(path)), "cpu")


def _fill(data: Path, folder: Path, utterances: Sequence[Utterance], seed: int, jobs: int) -> Iterator[None]:
    """Write the numbers of every utterance and its copies that are not there yet, one file each."""
    todo = partial(_describe_one, data / "audio", folder, seed)
    if jobs == 1:
        yield from map(todo, (u.path for u in utterances))
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(todo, (u.path for u in utterances), chunksize=4)


def _describe_one(audio: Path, folder: Path, seed: int, path: str) -> None:
    file = folder / f"{cache_name(path)}.npy"
    if file.exists():
        return
    wave = read_wave(audio / path)
    rows = [describe(wave)]
    for version in range(1, COPIES + 1):
        digest = hashlib.sha256(f"{seed}/{version}/{path}".encode()).digest()
        rows.append(describe(through_channel(wave, np.random.default_rng(int.from_bytes(digest[:8], "big")))))
    part = file.with_suffix(".part.npy")
    np.save(part, np.stack(rows))
    part.replace(file)
