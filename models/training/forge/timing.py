"""Edits of the course of the frames: held, left out, shown twice. The sound stays as it is, and so do time stamps."""

import numpy as np

from clipwarden.models.training.forge.recipe import (
    Edit,
    Moment,
    Need,
    Parameters,
    Picture,
    Recipe,
    Rng,
    Sources,
    Take,
    uniform,
)


def _draw_freeze(rng: Rng) -> dict[str, float]:
    return uniform(rng, start=(0.15, 0.5), length_s=(0.4, 1.5))


def _freeze(sources: Sources, parameters: Parameters, _: Rng) -> Edit:
    first, after = _stretch(sources.clip, parameters)
    held: list[Picture] = []

    def edit(moment: Moment) -> Picture:
        if moment.index <= first:
            held[:] = [moment.image.copy()] if moment.index == first else []
        return held[0] if held and first < moment.index < after else moment.image

    return edit


def _draw_drop(rng: Rng) -> dict[str, float]:
    return uniform(rng, start=(0.15, 0.5), length_s=(0.2, 0.6)) | {"cuts": float(rng.integers(1, 4))}


def _drop(sources: Sources, parameters: Parameters, rng: Rng) -> Edit:
    first, after = _stretch(sources.clip, parameters)
    most = sources.clip.frames - (after - first)
    others = {int(start) for start in rng.integers(1, max(most, 2), int(parameters["cuts"]) - 1)}
    dropped = {start + k for start in {first + 1, *others} for k in range(after - first - 1)}

    def edit(moment: Moment) -> Picture | None:
        return None if moment.index in dropped and moment.index else moment.image

    return edit


def _draw_duplicate(rng: Rng) -> dict[str, float]:
    return {"every": float(rng.integers(2, 5))}


def _duplicate(_: Sources, parameters: Parameters, __: Rng) -> Edit:
    every, shown = int(parameters["every"]), list[Picture]()

    def edit(moment: Moment) -> Picture:
        if moment.index % every != every - 1 or not shown:
            shown[:] = [moment.image.copy()]
        return shown[0]

    return edit


def _stretch(take: Take, parameters: Parameters) -> tuple[int, int]:
    """Frame before the stretch and frame after it; at least one lies between, the last frame is never in it."""
    first = min(int(parameters["start"] * take.frames), max(take.frames - 3, 0))
    length = max(round(parameters["length_s"] * take.fps), 1)
    return first, int(np.clip(first + 1 + length, first + 2, max(take.frames - 1, first + 2)))


FREEZE = Recipe(
    name="freeze",
    version=1,
    summary="one frame held for a while, the sound going on",
    fakes=frozenset({"visual", "sync"}),
    needs=frozenset({Need.PICTURES}),
    draw=_draw_freeze,
    look=_freeze,
)
DROP = Recipe(
    name="drop",
    version=1,
    summary="stretches of frames left out, the frame before them staying",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES}),
    draw=_draw_drop,
    look=_drop,
)
DUPLICATE = Recipe(
    name="duplicate",
    version=1,
    summary="every second to fourth frame replaced by the one before it",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES}),
    draw=_draw_duplicate,
    look=_duplicate,
)
