"""Pictures of one clip with the speech of another: material whose label is known for either part.

A detector of pictures never hears and one of speech never sees, so that the scores of a composite are those of its two
parts, each out of fold: both parts are of the composite's fold. A composite is manipulated if either part is.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from clipwarden.models.training.head_table import Floats


@dataclass(frozen=True, slots=True)
class Part:
    """A clip's pictures or an utterance, and its scores by the detectors of that kind, shape (columns,)."""

    path: str
    fake: bool
    group: str
    fold: int
    x: Floats


@dataclass(frozen=True, slots=True)
class Composite:
    """Composites of one `cell` share no group, of clips or of speech, with those of another."""

    pictures: Part
    sound: Part
    cell: int


def composites(pictures: Sequence[Part], sounds: Sequence[Part], seed: int) -> list[Composite]:
    """Every clip's pictures with genuine and with made speech of its cell, in the order of the clips within a fold."""
    found: list[Composite] = []
    rng = np.random.default_rng(seed)
    for fold in sorted({p.fold for p in pictures}):
        seen, heard = [[p for p in of if p.fold == fold] for of in (pictures, sounds)]
        found += _of_fold(seen, heard, rng, 1 + max((c.cell for c in found), default=-1))
    return found


def _of_fold(seen: Sequence[Part], heard: Sequence[Part], rng: np.random.Generator, first: int) -> Iterator[Composite]:
    shown, spoken = cells(seen, heard, rng)
    voices: dict[tuple[int, bool], list[Part]] = defaultdict(list)
    for k in rng.permutation(len(heard)).tolist():
        voices[spoken[heard[k].group], heard[k].fake].append(heard[k])
    turns = {of: cycle(some) for of, some in voices.items()}
    for part in seen:
        cell = shown[part.group]
        yield from (Composite(part, next(turns[cell, fake]), first + cell) for fake in (False, True))


def cells(
    seen: Sequence[Part], heard: Sequence[Part], rng: np.random.Generator
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Groups of clips and of speech dealt out to as many cells as each can have clips, genuine and made speech."""
    genuine = {p.group for p in heard if not p.fake}
    dealt = [{p.group for p in seen}, genuine, {p.group for p in heard} - genuine]
    count = min(len(groups) for groups in dealt)
    places = [dict(zip(rng.permutation(sorted(g)).tolist(), cycle(range(count)))) for g in dealt]
    return places[0], places[1] | places[2]
