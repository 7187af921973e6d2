"""Fits the two towers by canonical correlations: what of a mouth goes up and down with what of its sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from clipwarden.models.backbones.pictures import HALVES, PictureInput
from clipwarden.models.lipsync.pairing import REACH, Moment
from clipwarden.models.lipsync.towers import EMBEDDING, FRAMES, MOUTH_PX, SIDE, SyncNetwork
from clipwarden.models.training.sync_data import Talk

Rows = NDArray[np.float64]

_INPUT: Final = PictureInput(MOUTH_PX, *HALVES)
_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class SyncRecipe:
    """`components` is how many principal components of the mouths, and of the sounds, are looked for correlations."""

    components: int = 30


def fit_sync(talks: Sequence[Talk], recipe: SyncRecipe) -> SyncNetwork:
    """The towers whose embeddings correlate most over the moments of the talks, each taken less its talk's mean."""
    network = SyncNetwork().eval()
    pairs = [coarse(network, talk.moments) for talk in talks]
    mouths = _centred([seen for seen, _ in pairs]) @ moving()
    sounds = _centred([heard for _, heard in pairs])
    whitened = [_whitening(rows, recipe.components) for rows in (mouths, sounds)]
    cross = (mouths @ whitened[0]).T @ (sounds @ whitened[1]) / len(mouths)
    left, correlation, right = np.linalg.svd(cross)
    share = np.sqrt(correlation[:EMBEDDING])
    maps = moving() @ whitened[0] @ left[:, :EMBEDDING] * share, whitened[1] @ right[:EMBEDDING].T * share
    _set(network.mouth.last, maps[0], np.concatenate([seen for seen, _ in pairs]))
    _set(network.sound.last, maps[1], np.concatenate([heard for _, heard in pairs]))
    return network


@torch.no_grad()
def _set(layer: torch.nn.Linear, to: Rows, rows: Rows) -> None:
    """Let the layer be this map, of rows less their mean."""
    layer.weight.copy_(torch.from_numpy(to.T))
    layer.bias.copy_(torch.from_numpy(-rows.mean(axis=0) @ to))


@torch.inference_mode()
def coarse(network: SyncNetwork, moments: Sequence[Moment]) -> tuple[Rows, Rows]:
    """What the towers see of each moment, (N, 1280), and of the sound in its place, (N, 260)."""
    seen, heard = [], []
    for start in range(0, len(moments), _AT_ONCE):
        some = moments[start : start + _AT_ONCE]
        frames = _INPUT.tensor(np.concatenate([m.mouths for m in some]), torch.device("cpu"))
        mouths = frames.reshape(len(some), FRAMES, *frames.shape[1:]).transpose(1, 2)
        sounds = np.stack([m.candidates()[REACH] for m in some])
        seen.append(network.mouth.coarse(mouths).numpy().astype(np.float64))
        heard.append(network.sound.coarse(torch.from_numpy(sounds)[:, None]).numpy().astype(np.float64))
    return np.concatenate(seen), np.concatenate(heard)


def moving() -> Rows:
    """From five frames (1280) to their mean and the four steps between them, (1280, 1280)."""
    times = np.vstack([np.full(FRAMES, 1 / FRAMES), np.diff(np.eye(FRAMES), axis=0)])
    return np.kron(times.T, np.eye(SIDE * SIDE))


def _centred(of: Sequence[Rows]) -> Rows:
    """Rows of all talks, each talk's less their mean and in units of their spread: light and contrast tell nothing."""
    less = [rows - rows.mean(axis=0) for rows in of]
    return np.concatenate([rows / max(float(rows.std()), 1e-6) for rows in less])


def _whitening(rows: Rows, components: int) -> Rows:
    """To that many principal components, each of unit variance: (D, components)."""
    variance, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    return np.asarray(axes[:, : -components - 1 : -1] / np.sqrt(variance[: -components - 1 : -1] + 1e-9))
