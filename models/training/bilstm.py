"""The run that makes the BiLSTM over faces: on embeddings of the ResNet-18 whose run lies beside, fold by fold.

A fold's network over time learns from the fold's own frame network, so that neither has seen what it is tested on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from clipwarden.models.backbones.embedders import FrameEmbedder
from clipwarden.models.checkpoint import save_from
from clipwarden.models.training.clip_cache import ClipCache
from clipwarden.models.training.run_folder import AS_IT_IS, RunFolder, ScoreRow, begin_run
from clipwarden.models.training.video_data import FOLDS, VideoClip, clip_weights, read_clips, training_clips
from clipwarden.models.training.video_report import clip_facts, clip_metrics, clip_row
from clipwarden.models.visual.temporal_bilstm import LEAST_FRAMES, BiLstmNetwork, TemporalBiLstm
from clipwarden.models.weights import WeightFile, file_digest
from clipwarden.shared.contracts import Dtype
from clipwarden.shared.errors import ConfigError

NAME: Final = "temporal_bilstm"
BACKBONE: Final = "frame_resnet18"
Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BiLstmRecipe:
    """AdamW, one cycle. `shortest` is the least part of a sequence that a draw may keep of it, at a random place.

    `precision` is what the frame network computes in.
    """

    steps: int = 200
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    shortest: float = 0.5
    precision: Dtype = "bfloat16"


RECIPE: Final = BiLstmRecipe()


@dataclass(frozen=True, slots=True)
class FaceSequence:
    """A clip with the embeddings (T, width) of its faces in the order of time."""

    clip: VideoClip
    embeddings: Embeddings


def train_bilstm(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run keeps the faces it has.

    Raises ConfigError if there is no finished run of the frame network beside `out`.
    """
    torch.set_num_threads(jobs)
    backbones = [_backbone(out, name) for name in (*(f"fold-{k}" for k in range(FOLDS)), BACKBONE)]
    run = begin_run(out, NAME, seed, RECIPE, data / "video", backbone=backbones[-1].digest)
    clips = read_clips(data)
    cache = ClipCache(data, run.folder("faces"), TemporalBiLstm.spec, lambda view: view.images, jobs)
    for _ in progress.track(cache.fill(clips, (AS_IT_IS,)), total=len(clips), description="faces"):
        pass
    clips = [c for c in clips if len(cache.rows(c)) >= LEAST_FRAMES]
    scores: list[ScoreRow] = []
    for fold, backbone in enumerate(backbones[:FOLDS]):
        tested = [c for c in clips if c.fold == fold]
        material = progress.track(_embedded(cache, clips, backbone), total=len(clips), description=f"fold {fold} seen")
        seen = {m.clip: m for m in material}
        detector = _network(run, f"fold-{fold}", [seen[c] for c in training_clips(clips, tested)], backbone, seed)
        scores += [clip_row(c, _logit(detector, seen[c])) for c in tested]
    whole = progress.track(_embedded(cache, clips, backbones[-1]), total=len(clips), description="all seen")
    _network(run, NAME, list(whole), backbones[-1], seed)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", clip_metrics(clips, scores, seed))
    run.write_json("data.json", clip_facts(data, clips))
    return run


def fit_bilstm(
    network: BiLstmNetwork, material: Sequence[FaceSequence], recipe: BiLstmRecipe, seed: int
) -> Iterator[float]:
    """Train the network on sequences drawn by their clip's weight, yielding the loss of every step.

    It is in eval mode after the last.
    """
    rng = np.random.default_rng(seed)
    weights = clip_weights([m.clip for m in material])
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps)
    network.train()
    for _ in range(recipe.steps):
        chosen = [material[k] for k in rng.choice(len(material), recipe.batch, p=weights)]
        found = mean_logits(network, [_stretch(m.embeddings, recipe, rng) for m in chosen])
        target = torch.tensor([float(m.clip.fake) for m in chosen])
        aim = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
        loss = nn.functional.binary_cross_entropy_with_logits(found, aim)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        optimiser.step()
        schedule.step()
        yield loss.item()
    network.eval()


def mean_logits(network: BiLstmNetwork, sequences: Sequence[Embeddings]) -> Tensor:
    """Logits of fake (N,): the means over each sequence's own steps."""
    lengths = torch.tensor([len(s) for s in sequences])
    padded = pad_sequence([torch.from_numpy(s) for s in sequences], batch_first=True)
    steps: Tensor = network(padded, lengths)
    return steps.sum(dim=1) / lengths


def _stretch(embeddings: Embeddings, recipe: BiLstmRecipe, rng: np.random.Generator) -> Embeddings:
    """A random run of neighbours, perhaps turned round in time."""
    length = max(round(len(embeddings) * rng.uniform(recipe.shortest, 1)), LEAST_FRAMES)
    start = int(rng.integers(len(embeddings) - length + 1))
    return np.ascontiguousarray(embeddings[start : start + length][:: int(rng.choice((-1, 1)))])


def _backbone(out: Path, name: str) -> WeightFile:
    path = out.absolute().parent / BACKBONE / f"{name}.safetensors"
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: {NAME} needs a finished run of {BACKBONE} beside its own; train it first"
        )
    return WeightFile(path, file_digest(path))


def _embedded(cache: ClipCache, clips: Sequence[VideoClip], backbone: WeightFile) -> Iterator[FaceSequence]:
    embedder = FrameEmbedder.load(BACKBONE, backbone, "cpu", RECIPE.precision)
    return (FaceSequence(clip, embedder.embed(cache.rows(clip))) for clip in clips)


def _network(
    run: RunFolder, name: str, material: Sequence[FaceSequence], backbone: WeightFile, seed: int
) -> BiLstmNetwork:
    """Train a network and keep it."""
    torch.manual_seed(seed)
    network = BiLstmNetwork(material[0].embeddings.shape[1])
    run.write_curve(name, list(fit_bilstm(network, material, RECIPE, seed)))
    facts = {"detector": NAME, "seed": str(seed), "backbone": backbone.digest}
    save_from(network, run.path / f"{name}.safetensors", facts)
    return network


@torch.inference_mode()
def _logit(network: BiLstmNetwork, found: FaceSequence) -> float:
    return float(mean_logits(network, [found.embeddings])[0])
