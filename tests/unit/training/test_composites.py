"""Pictures of one clip with the speech of another: both of one fold, and related ones in one cell."""

from collections import defaultdict

import numpy as np

from clipwarden.models.training.composites import Part, composites


def parts(seed: int, groups: int, both: int = 0, start: str = "g") -> list[Part]:
    """Parts in groups of one label, five folds of them; in the first `both` groups of a fold there are both labels."""
    rng = np.random.default_rng(seed)
    found = []
    for fold in range(5):
        for group in range(groups):
            for k in range(int(rng.integers(1, 5)) + 1):
                fake = bool(k % 2) if group < both else group % 2 == 0
                name = f"{start}{fold}-{group}"
                found.append(Part(f"{name}/{k}", fake, name, fold, rng.normal(size=2)))
    return found


def test_every_clip_is_heard_with_genuine_and_with_made_speech_of_its_fold() -> None:
    pictures, sounds = parts(0, 12), parts(1, 30, both=6, start="s")
    made = composites(pictures, sounds, 0)
    assert all(c.pictures.fold == c.sound.fold for c in made)
    pairs = sorted((c.pictures.path, c.sound.fake) for c in made)
    assert pairs == sorted((p.path, fake) for p in pictures for fake in (False, True))


def test_related_clips_and_related_speech_share_a_cell_and_a_cell_lies_in_one_fold() -> None:
    made = composites(parts(0, 12), parts(1, 30, both=6, start="s"), 0)
    cells: dict[str, set[int]] = defaultdict(set)
    folds: dict[int, set[int]] = defaultdict(set)
    for c in made:
        cells[c.pictures.group].add(c.cell)
        cells[c.sound.group].add(c.cell)
        folds[c.cell].add(c.pictures.fold)
    assert {len(found) for found in [*cells.values(), *folds.values()]} == {1}
    assert len(folds) > 30


def test_speech_takes_turns() -> None:
    made = composites(parts(0, 12), parts(1, 12, start="s"), 0)
    times: dict[tuple[int, bool], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for c in made:
        times[c.cell, c.sound.fake][c.sound.path] += 1
    assert all(max(heard.values()) - min(heard.values()) <= 1 for heard in times.values())


def test_another_seed_makes_other_pairs() -> None:
    pictures, sounds = parts(0, 12), parts(1, 30, start="s")
    drawn = [[c.sound.path for c in composites(pictures, sounds, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
