"""A labelled set from a manifest: each real clip as it is and manipulated, each fake one as it is, washed alike.

One clip at a time, each item beside its record, so that a stopped run goes on. All items of a clip get the same wash:
it is drawn by the clip, not by the label. Every item carries the person, footage and fold of its clip.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from clipwarden.models.training.forge.footage import Footage
from clipwarden.models.training.forge.forging import ALL_REAL, Forge, Item, Order, record_of
from clipwarden.models.training.forge.recipe import Labels, NotForgeable, Recipe, Rng, Sources, Truth, seeded
from clipwarden.models.training.forge.recipes import UNTOUCHED, recipe_of
from clipwarden.models.training.run_folder import RunFolder, cache_name
from clipwarden.models.weights import file_digest
from clipwarden.shared.contract import Contract
from clipwarden.shared.errors import ConfigError, MediaError

ITEMS: Final = "items.csv"
LEFT_OUT: Final = "left_out.csv"
CARRIED: Final = ("group", "identity", "matched_group", "fold", "source_fold", "licence")
_FAKE: Final = {"real": False, "bonafide": False, "genuine": False, "fake": True, "spoof": True, "spoofed": True}
_COLUMNS: Final = ("path", "label", "visual", "audio", "sync", "recipe", "washed", "source", "other", *CARRIED)
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class SetPlan:
    """`recipes` are drawn from, `per_clip` of them for each real clip; `wash_share` of the clips are washed."""

    recipes: tuple[str, ...]
    per_clip: int = 1
    seed: int = 0
    wash_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the manifest; `fake` is None if its label is neither."""

    path: str
    fake: bool | None
    carried: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: items made or found, and reasons for what was left out."""

    row: Row
    items: tuple[tuple[str, Item], ...]
    left_out: tuple[tuple[str, str], ...]


def forge_set(
    manifest: Path, out: Path, forge: Forge, plan: SetPlan, notice: Callable[[Outcome, int], None] | None = None
) -> dict[str, int]:
    """Make the set in a folder; `items.csv` and `left_out.csv` list it when it is complete. Returns counts.

    Paths of the manifest are relative to its folder. `notice` is told of each row and of how many there are. Raises
    ConfigError if the manifest is not usable or the folder holds another set.
    """
    recipes = tuple(recipe_of(name) for name in plan.recipes)
    rows = list(read_manifest(manifest))
    if not rows:
        raise ConfigError(f"{manifest} has no row")
    versions = {recipe.name: recipe.version for recipe in recipes}
    run = RunFolder(out, {"manifest": file_digest(manifest), "plan": asdict(plan), "versions": versions})
    maker = _Maker(forge, manifest.parent, run.folder("items"), plan, recipes, [r for r in rows if r.fake is False])
    counts = {"rows": 0, "items": 0, "left_out": 0}
    with _Table(out / ITEMS, _COLUMNS) as made, _Table(out / LEFT_OUT, ("source", "recipe", "reason")) as left:
        for row in rows:
            outcome = maker.made_of(row)
            made.extend(_listed(name, item, row) for name, item in outcome.items)
            left.extend({"source": row.path, "recipe": r, "reason": why} for r, why in outcome.left_out)
            counts["rows"] += 1
            counts["items"] += len(outcome.items)
            counts["left_out"] += len(outcome.left_out)
            if notice:
                notice(outcome, len(rows))
    return counts


def read_manifest(path: Path) -> Iterator[Row]:
    """Rows of a CSV file with path and label. Raises ConfigError if it cannot be read or lacks a column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if lacking := {"path", "label"} - set(reader.fieldnames or ()):
                raise ConfigError(f"{path} has no column {', '.join(sorted(lacking))}")
            for row in reader:
                carried = {name: row.get(name) or "" for name in CARRIED}
                yield Row(row["path"] or "", _FAKE.get((row["label"] or "").strip().lower()), carried)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a manifest: {error}") from error


class _Maker:
    """Makes what a row calls for, unless it is there."""

    def __init__(
        self, forge: Forge, data: Path, folder: Path, plan: SetPlan, recipes: tuple[Recipe, ...], real: list[Row]
    ) -> None:
        self._forge, self._data, self._folder, self._plan = forge, data, folder, plan
        self._recipes = recipes
        self._real: dict[tuple[str, ...], list[Row]] = {}
        for row in real:
            self._real.setdefault(_folds(row), []).append(row)
        self._seen = set[str]()

    def made_of(self, row: Row) -> Outcome:
        if row.fake is None:
            return Outcome(row, (), (("", "its label is neither real nor fake"),))
        if row.path in self._seen:
            return Outcome(row, (), (("", "an earlier row has the same path"),))
        self._seen.add(row.path)
        kept = self._folder / f"{cache_name(row.path)}.outcome.json"
        if kept.exists():
            return self._found(row, kept)
        try:
            clip = self._forge.look(self._data / row.path)
        except (MediaError, OSError) as error:
            outcome = Outcome(row, (), (("", str(error)),))
        else:
            outcome = self._made(row, clip)
        said = _Kept(items=tuple(name for name, _ in outcome.items), left_out=outcome.left_out)
        kept.write_text(said.model_dump_json() + "\n", "utf-8")
        return outcome

    def _made(self, row: Row, clip: Footage) -> Outcome:
        rng = seeded(self._plan.seed, "set", row.path)
        wash = bool(rng.random() < self._plan.wash_share)
        before = _before(row, clip)
        items, left = list[tuple[str, Item]](), list[tuple[str, str]]()
        for recipe in (UNTOUCHED, *(() if row.fake else self._drawn(clip, rng))):
            order = Order(recipe, self._plan.seed, wash, before)
            try:
                items.append(self._one(order, row, clip, rng))
            except (NotForgeable, MediaError, OSError) as error:
                left.append((recipe.name, str(error)))
        return Outcome(row, tuple(items), tuple(left))

    def _drawn(self, clip: Footage, rng: Rng) -> list[Recipe]:
        """Recipes for this clip, among those that can be made of it."""
        possible = [r for r in self._recipes if not set(r.missing(Sources(clip.take, clip.take)))]
        return [possible[k] for k in rng.permutation(len(possible))[: self._plan.per_clip]]

    def _one(self, order: Order, row: Row, clip: Footage, rng: Rng) -> tuple[str, Item]:
        suffix = ".mp4" if clip.probe.has_video else ".flac"
        out = self._folder / f"{cache_name(row.path)}-{order.recipe.name}{suffix}"
        other = self._other(order.recipe, row, clip, rng) if order.recipe.needs_other else None
        return out.name, self._forge.make(order, clip, other, out)

    def _other(self, recipe: Recipe, row: Row, clip: Footage, rng: Rng) -> Footage | None:
        """A real clip of somebody else, of the same fold, that has what the recipe takes; None after a few tries."""
        among = [found for found in self._real[_folds(row)] if not _related(found, row)]
        for k in rng.permutation(len(among))[:_TRIES]:
            found = among[k]
            with suppress(MediaError, OSError):
                other = self._forge.look(self._data / found.path)
                if not recipe.missing(Sources(clip.take, other.take)):
                    return other
        return None

    def _found(self, row: Row, kept: Path) -> Outcome:
        said = _Kept.model_validate_json(kept.read_text("utf-8"))
        items = tuple(
            (name, Item.model_validate_json(record_of(self._folder / name).read_text("utf-8"))) for name in said.items
        )
        return Outcome(row, items, said.left_out)


class _Kept(Contract):
    """What became of a row, in a file: the mark that it is done."""

    items: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


class _Table:
    """A CSV file that appears when it is complete."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path, self._part = path, path.with_suffix(".part")
        self._stream = self._part.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, columns)
        self._writer.writeheader()

    def __enter__(self) -> Self:
        return self

    def extend(self, rows: Iterable[Mapping[str, str]]) -> None:
        self._writer.writerows(rows)

    def __exit__(self, kind: object, *_: object) -> None:
        self._stream.close()
        if kind is None:
            self._part.replace(self._path)


def _listed(name: str, item: Item, row: Row) -> dict[str, str]:
    """A row of the set's own manifest. An item is fake if anything about it is."""
    others = [source.name for source in item.sources if source.part == "other"]
    return {
        "path": f"items/{name}",
        "label": "fake" if item.labels.fake else "real",
        **item.labels.model_dump(mode="json"),
        "recipe": item.recipe,
        "washed": "yes" if item.wash else "no",
        "source": row.path,
        "other": others[0] if others else "",
        **row.carried,
    }


def _before(row: Row, clip: Footage) -> Labels:
    """What the manifest says of a clip: of a fake one with pictures, nothing is known of its sound."""
    if not row.fake:
        return ALL_REAL
    if clip.probe.has_video:
        return Labels(visual=Truth.FAKE, audio=Truth.UNKNOWN, sync=Truth.UNKNOWN)
    return Labels(visual=Truth.ABSENT, audio=Truth.FAKE, sync=Truth.ABSENT)


def _related(row: Row, other: Row) -> bool:
    """Whether two clips are the same one, or show the same person or footage."""
    mine, theirs = row.carried, other.carried
    kin = any(mine[name] and mine[name] == theirs[name] for name in ("identity", "matched_group"))
    return row.path == other.path or kin


def _folds(row: Row) -> tuple[str, ...]:
    """What must not meet in one item."""
    return row.carried["fold"], row.carried["source_fold"]
