"""The speech corpus: its utterances, its folds, and their CQCC in a cache.

Layout of the data folder: `audio/manifest.csv`, `audio/folds.csv`, and 16 kHz mono FLAC under `audio/`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from clipwarden.models.audio.cqcc import cqcc
from clipwarden.models.audio.cqt import SAMPLE_RATE_HZ
from clipwarden.models.training.channel import through_channel
from clipwarden.models.training.run_folder import cache_name, read_table
from clipwarden.shared.errors import ConfigError

FOLDS: Final = 5
COPIES: Final = 2  # copies of each utterance through random channels, beside the utterance itself


@dataclass(frozen=True, slots=True)
class Utterance:
    """`kin` is what it shares its sound with: the system that made it, or the source it was recorded for."""

    path: str
    fake: bool
    kin: str
    family: str
    group: str
    source_fold: int
    family_fold: int | None
    modern: bool
    channel: str

    @property
    def test_fold(self) -> int:
        """The one fold that tests it: bona fide by source, spoofed by family of synthesis."""
        return self.source_fold if self.family_fold is None else self.family_fold

    def trains(self, fold: int) -> bool:
        """Whether it may be learnt from when `fold` is the test: neither its source nor its family is in it."""
        return fold not in (self.source_fold, self.family_fold)


def read_utterances(data: Path) -> list[Utterance]:
    """Utterances of the corpus in the order of its folds.csv. Raises ConfigError if a table is not as expected."""
    folds = read_table(data / "audio/folds.csv", ("path", "label", "family", "source_fold", "family_fold", "modern"))
    facts = {r["path"]: r for r in read_table(data / "audio/manifest.csv", ("path", "system", "source", "channel"))}
    return [_utterance(row, facts[row["path"]]) for row in folds]


def training_utterances(utterances: Sequence[Utterance], fold: int, speakers_apart: bool = True) -> list[int]:
    """Places of those that may be learnt from when `fold` is the test: of no group, so of no speaker, that is in it.

    The headline protocol of the corpus keeps sources and families apart, and not speakers.
    """
    tested = {u.group for u in utterances if u.test_fold == fold and speakers_apart}
    return [k for k, u in enumerate(utterances) if u.trains(fold) and u.group not in tested]


def weights_of(utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """Sampling weights: 1/√n of the system or source, each label in sum one half."""
    sizes = Counter(u.kin for u in utterances)
    weights = np.array([sizes[u.kin] ** -0.5 for u in utterances])
    fake = np.array([u.fake for u in utterances])
    for side in (fake, ~fake):
        weights[side] *= 0.5 / weights[side].sum()
    return weights


def read_wave(path: Path) -> NDArray[np.float32]:
    """Read 16 kHz mono sound in [-1, 1). Raises ConfigError for any other format."""
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE_HZ or wave.ndim != 1:
        raise ConfigError(f"training data: {path} is not {SAMPLE_RATE_HZ} Hz mono")
    return np.asarray(wave, np.float32)


class CqccCache:
    """CQCC rows of utterances as float16 files: version 0 is the utterance, others went through a channel."""

    def __init__(self, data: Path, folder: Path, seed: int) -> None:
        self._data, self._folder, self._seed = data, folder, seed

    def fill(self, utterances: Sequence[Utterance]) -> Iterator[Utterance]:
        """Compute what is missing, yielding each utterance when it is done."""
        for utterance in utterances:
            missing = [v for v in range(COPIES + 1) if not self._file(utterance, v).exists()]
            if missing:
                wave = read_wave(self._data / "audio" / utterance.path)
                for version in missing:
                    self._store(utterance, version, wave)
            yield utterance

    def rows(self, utterance: Utterance, version: int) -> NDArray[np.float32]:
        """CQCC (90, T) of one version."""
        return np.asarray(np.load(self._file(utterance, version)), np.float32)

    def _store(self, utterance: Utterance, version: int, wave: NDArray[np.float32]) -> None:
        if version:
            digest = hashlib.sha256(f"{self._seed}/{version}/{utterance.path}".encode()).digest()
            wave = through_channel(wave, np.random.default_rng(int.from_bytes(digest[:8], "big")))
        part = self._file(utterance, version).with_suffix(".part.npy")
        np.save(part, cqcc(wave).astype(np.float16))
        part.replace(self._file(utterance, version))

    def _file(self, utterance: Utterance, version: int) -> Path:
        return self._folder / f"{cache_name(utterance.path)}.{version}.npy"


def _utterance(row: dict[str, str], facts: dict[str, str]) -> Utterance:
    fake = row["label"] != "bonafide"
    return Utterance(
        path=row["path"],
        fake=fake,
        kin=facts["system"] if fake else facts["source"],
        family=row["family"],
        group=row["group"],
        source_fold=int(row["source_fold"]),
        family_fold=int(row["family_fold"]) if row["family_fold"] else None,
        modern=row["modern"] == "1",
        channel=facts["channel"],
    )
