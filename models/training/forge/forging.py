"""One item of the forge: a clip through a recipe and, if wanted, a wash, with a record of what was done beside it."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Final, Literal

from clipwarden.models.faces import FaceDetector
from clipwarden.models.training.forge.footage import Footage, look_through
from clipwarden.models.training.forge.recipe import (
    Edit,
    Labels,
    Moment,
    NotForgeable,
    Parameters,
    Recipe,
    Rng,
    Sources,
    Speech,
    Take,
    Truth,
    Wave,
    seeded,
)
from clipwarden.models.training.forge.washing import Wash, draw_wash, washed, washed_sound
from clipwarden.models.training.forge.writing import Coding, Timed, write_clip, write_sound
from clipwarden.shared.contract import Contract, Digest
from clipwarden.shared.media.fence import Fence

SECONDS: Final = 20.0
ALL_REAL: Final = Labels(visual=Truth.REAL, audio=Truth.REAL, sync=Truth.REAL)
SOUND_SUFFIXES: Final = (".flac", ".wav")
_PACKAGES: Final = ("clipwarden", "av", "librosa", "numpy", "onnxruntime", "opencv-python-headless", "scipy", "torch")


class Source(Contract):
    """A file that went into an item."""

    part: Literal["clip", "other"]
    name: str
    digest: Digest


class Item(Contract):
    """What was made and how: with the same sources, versions and seed its frames and samples come out the same.

    `pictures` and `sound` are digests of what was given to the encoders: RGB frames with their times, and samples.
    """

    recipe: str
    version: int
    parameters: dict[str, float]
    seed: int
    sources: tuple[Source, ...]
    labels: Labels
    wash: Wash | None
    frames: int
    seconds: float
    speech: Speech | None = None
    pictures: Digest | None
    sound: Digest | None
    made_with: dict[str, str]


@dataclass(frozen=True, slots=True)
class Order:
    """What shall be made. `before` says what is true of the clip as it is; absent sound is noticed. `words` are for a
    recipe that says some; without them it draws its own.
    """

    recipe: Recipe
    seed: int = 0
    wash: bool = False
    before: Labels = ALL_REAL
    words: str | None = None


class Forge:
    """Makes items. Not for several threads at once."""

    def __init__(self, fence: Fence, seconds: float = SECONDS) -> None:
        """`seconds` bounds what is used of a clip, from its start."""
        self._fence, self._seconds, self._faces = fence, seconds, FaceDetector()

    def look(self, path: Path) -> Footage:
        """Look through a clip. Raises MediaError if it cannot be read, OSError if it is not there."""
        return look_through(self._fence, path, self._faces, self._seconds)

    def make(self, order: Order, clip: Footage, other: Footage | None, out: Path) -> Item:
        """Write an item, and its record beside it as `<out>.json`. Raises NotForgeable, MediaError."""
        check_out(out, clip, other)
        sources = Sources(clip.take, other.take if other else None)
        order.recipe.check(sources)
        rng = seeded(order.seed, order.recipe.name, *(s.digest for s in (clip.take, sources.other) if s))
        parameters = order.recipe.draw(rng)
        sources = replace(sources, speech=_speech(order, clip.take, parameters, rng))
        wash_rng = seeded(order.seed, "wash", clip.take.digest)
        wash = draw_wash(wash_rng, clip.take.width, clip.take.height) if order.wash else None
        wave = _heard(order.recipe, sources, parameters, rng, wash, wash_rng)
        stamp, count = None, 0
        if clip.probe.has_video:
            edit = order.recipe.look(sources, parameters, rng) if order.recipe.look else None
            stamp, count = self._written(clip, edit, wave, wash, wash_rng, out)
        else:
            write_sound(out, wave, clip.take.rate_hz)
        item = Item(
            recipe=order.recipe.name,
            version=order.recipe.version,
            parameters=dict(parameters),
            seed=order.seed,
            sources=_named(clip, other if order.recipe.needs_other else None),
            labels=order.recipe.labels(_present(order.before, clip.take)),
            wash=wash,
            frames=count,
            seconds=_seconds(clip.take, wave),
            speech=sources.speech,
            pictures=stamp,
            sound=f"sha256:{hashlib.sha256(wave.tobytes()).hexdigest()}" if len(wave) else None,
            made_with={name: version(name) for name in (*_PACKAGES, *_wheels(order.recipe.package))},
        )
        record_of(out).write_text(item.model_dump_json(indent=2) + "\n", "utf-8")
        return item

    def _written(
        self, clip: Footage, edit: Edit | None, wave: Wave, wash: Wash | None, rng: Rng, out: Path
    ) -> tuple[str, int]:
        """Write pictures and sound; returns the digest of the pictures and how many there are."""
        digest = hashlib.sha256()

        def noted(frames: Iterator[Timed]) -> Iterator[Timed]:
            for timed in frames:
                digest.update(f"{timed.time_s:.6f} {timed.image.shape}".encode())
                digest.update(timed.image.tobytes())
                yield timed

        coding = wash.codings[-1] if wash else Coding()
        with closing(clip.moments(self._fence)) as moments:  # or a failure would leave the fence locked for a while
            frames = _edited(moments, edit)
            passing = washed(frames, clip.take.fps, wash, rng) if wash else frames
            count = write_clip(out, noted(passing), clip.take.fps, wave, clip.take.rate_hz, coding)
        return f"sha256:{digest.hexdigest()}", count


def _edited(moments: Iterator[Moment], edit: Edit | None) -> Iterator[Timed]:
    for moment in moments:
        image = edit(moment) if edit else moment.image
        if image is not None:
            yield Timed(moment.time_s, image)


def record_of(out: Path) -> Path:
    """Where the record of an item lies."""
    return out.with_name(f"{out.name}.json")


def check_out(out: Path, clip: Footage, other: Footage | None) -> None:
    """Raises NotForgeable if the item cannot be written under this name."""
    wanted = (".mp4",) if clip.probe.has_video else SOUND_SUFFIXES
    if out.suffix.lower() not in wanted:
        raise NotForgeable(f"{out.name} must end in {' or '.join(wanted)} to hold what is made of {clip.path.name}")
    if not out.parent.is_dir():
        raise NotForgeable(f"there is no folder {out.parent}")
    if any(out.exists() and out.samefile(footage.path) for footage in (clip, other) if footage):
        raise NotForgeable(f"{out} is the clip itself; give another --out")


@cache
def _wheels(package: str | None) -> list[str]:
    """The installed distributions that hold an optional package."""
    return sorted(set(packages_distributions().get(package, ()))) if package else []


def _speech(order: Order, clip: Take, parameters: Parameters, rng: Rng) -> Speech | None:
    if order.recipe.say:
        return order.recipe.say(clip, order.words, parameters, rng)
    if order.words is not None:
        raise NotForgeable(f"{order.recipe.name} says no words")
    return None


def _heard(
    recipe: Recipe, sources: Sources, parameters: Parameters, rng: Rng, wash: Wash | None, wash_rng: Rng
) -> Wave:
    clip = sources.clip
    wave = recipe.listen(sources, parameters, rng) if recipe.listen else clip.wave
    return washed_sound(wave, clip.rate_hz, wash, wash_rng) if wash else wave


def _present(labels: Labels, take: Take) -> Labels:
    """Nothing is true of a voice or a picture that is not there."""
    absent = {} if take.has_sound else {"audio": Truth.ABSENT, "sync": Truth.ABSENT}
    unseen = {} if take.frames else {"visual": Truth.ABSENT, "sync": Truth.ABSENT}
    return labels.model_copy(update=absent | unseen)


def _seconds(take: Take, wave: Wave) -> float:
    """The longer of pictures and sound."""
    return round(max(take.frames / max(take.fps, 1), len(wave) / max(take.rate_hz, 1)), 3)


def _named(clip: Footage, other: Footage | None) -> tuple[Source, ...]:
    first = Source(part="clip", name=clip.path.name, digest=clip.take.digest)
    return (first, Source(part="other", name=other.path.name, digest=other.take.digest)) if other else (first,)
