"""What each detector of the table judges in a batch, made from seeds, and the weights that tests load it with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.audio.cqcc import cqcc
from clipwarden.models.audio.mel import log_mel
from clipwarden.models.audio.statistics import describe
from clipwarden.models.detector import detector_class
from clipwarden.models.visual.forensic_features import forensic_features
from clipwarden.models.weights import WeightFile, state_of, verified, weights_table
from clipwarden.shared.contracts import DetectorState
from tests.media import speech
from tests.networks import pictures, write_weights

Items = list[Any]
Together = Callable[[Items], Any]


def weights_of(name: str, folder: Path) -> WeightFile:
    """The detector's own weights, or random ones as an installed file."""
    ships = state_of(weights_table()[name]) is DetectorState.READY
    return verified(name) if ships else write_weights(name, folder)


def items(name: str, count: int) -> tuple[Items, Together]:
    """That many different items, of several clips, and what makes a batch of some."""
    make, together = OWN_ITEMS.get(name, (lambda n: _pictures_of(name, n), _stacked))
    return make(count), together


def _pictures_of(name: str, count: int) -> Items:
    need = detector_class(name).spec.needs.frames
    assert need is not None
    return list(pictures(count, need.size_px, seed=3))


def _sequences(size: int, count: int) -> Items:
    """Clips of pictures, each a frame longer than the one before."""
    return [pictures(2 + k, size, seed=k) for k in range(count)]


def _noise(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _stretches(count: int, seconds: float = 6.4) -> Items:
    """Speech in [-1, 1), one voice after the other."""
    return [speech(seconds, seed) / np.float32(32768) for seed in range(count)]


def _windows(count: int) -> Items:
    """Pictures and crops as LipFD with its input put right takes them."""
    crops = [pictures(15, 224, seed=k).reshape(5, 3, 224, 224, 3) for k in range(count)]
    return [(pictures(1, 1120, seed=k)[0], crops[k]) for k in range(count)]


def _stacked(some: Items) -> NDArray[Any]:
    return np.stack(some)


def _paired(some: Items) -> Sequence[NDArray[Any]]:
    return tuple(np.stack(parts) for parts in zip(*some, strict=True))


OWN_ITEMS: Final[Mapping[str, tuple[Callable[[int], Items], Together]]] = {
    "forensic_mlp": (lambda n: [forensic_features(p) for p in pictures(n, 256)], _stacked),
    "temporal_3dcnn": (lambda n: [pictures(16, 224, seed=k) for k in range(n)], _stacked),
    "temporal_bilstm": (lambda n: _sequences(224, n), list),
    "siglip_lstm": (lambda n: _sequences(224, n), list),
    "clip_adapter": (lambda n: _sequences(384, n), list),
    "cqcc_cnn": (lambda n: [cqcc(wave)[:, :400] for wave in _stretches(n)], _stacked),
    "mel_resnet18": (lambda n: [log_mel(wave) for wave in _stretches(n, 4)], _stacked),
    "speech_stats": (lambda n: [describe(wave) for wave in _stretches(n)], _stacked),
    "av_sync": (lambda n: [(pictures(5, 96, seed=k), _noise(k, 80, 13)) for k in range(n)], _paired),
    "av_sync_seed": (lambda n: [_noise(k, 768) for k in range(n)], _stacked),
    "lipfd": (lambda n: list(np.random.default_rng(1).integers(0, 256, (n, 1000, 2500, 3), np.uint8)), _stacked),
    "lipfd_fixed": (_windows, _paired),
}
"""Detector → what makes N different items, and a batch of them; the others see pictures."""
