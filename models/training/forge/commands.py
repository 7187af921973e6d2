"""`clipwarden forge`: makes one manipulated clip to see the system react to, or a labelled set from a manifest."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from clipwarden.models.training.forge.footage import LIMITS, Footage
from clipwarden.models.training.forge.forge_set import SetPlan, forge_set
from clipwarden.models.training.forge.forging import SECONDS, Forge, Item, Order, record_of
from clipwarden.models.training.forge.neural_voice import NEURAL_VOICE
from clipwarden.models.training.forge.recipe import NotForgeable, Recipe, Sources
from clipwarden.models.training.forge.recipes import RECIPES, UNTOUCHED, installed, recipe_of, wheel_of
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.media.fence import Fence

DEFAULTS: Final = ("puppet", "reanimation", "griffin_lim", "duplicate")
"""The first of these that can be made."""


def main(argv: Sequence[str]) -> int:
    """Make what was asked for. Raises NotForgeable, ConfigError or MediaError where that cannot be."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    if chosen.list:
        Console().print(_table())
        return 0
    if chosen.file is None or chosen.out is None:
        parser.error("give a file and --out, or --list")
    if chosen.seconds <= 0:
        parser.error("--seconds must be more than 0")
    if chosen.say is not None and chosen.file.suffix.lower() == ".csv":
        parser.error("--say is for one clip, not for a manifest")
    with Fence(LIMITS) as fence:
        forge = Forge(fence, chosen.seconds)
        if chosen.file.suffix.lower() == ".csv":
            return _set(forge, chosen)
        item = _one(forge, chosen)
    _tell(item, chosen.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "clipwarden forge",
        description="Make a manipulated clip from a real one, to see the system react, with a record beside it. "
        "A manifest (CSV with path and label) makes a labelled set.",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="video, picture or sound; or a manifest")
    parser.add_argument("--out", type=Path, help="what to write: .mp4, .flac or .wav; a folder for a manifest")
    parser.add_argument("--recipe", metavar="NAME", help="default: the one that shows most; for a manifest: A,B,...")
    parser.add_argument("--with", dest="other", type=Path, metavar="OTHER", help="clip to take a face or voice from")
    parser.add_argument("--say", metavar="WORDS", help=f"what {NEURAL_VOICE.name} says, in English (default: drawn)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launder", action="store_true", help="compress as platforms do; half of a set's clips")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="use this much from the start (default %(default)g)"
    )
    parser.add_argument("--per-clip", type=int, default=1, help="manipulations of each real clip of a manifest")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    return parser


def _one(forge: Forge, chosen: argparse.Namespace) -> Item:
    wanted = chosen.recipe or (None if chosen.say is None else NEURAL_VOICE.name)
    named = recipe_of(wanted) if wanted else None
    if named and named.needs_other and not chosen.other:
        raise NotForgeable(f"{named.name} takes something from another clip: give one by --with")
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as progress:
        task = progress.add_task(f"looking through {chosen.file.name}")
        clip = _read(forge, chosen.file)
        other = _read(forge, chosen.other) if chosen.other else None
        recipe = named or recipe_of(_default(clip))
        progress.update(task, description=f"making {recipe.name}")
        return forge.make(Order(recipe, chosen.seed, chosen.launder, words=chosen.say), clip, other, chosen.out)


def _read(forge: Forge, path: Path) -> Footage:
    try:
        return forge.look(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}") from error


def _default(clip: Footage) -> str:
    """What shows most of what can be made of this clip."""
    for name in DEFAULTS:
        if not RECIPES[name].missing(Sources(clip.take)):
            return name
    raise NotForgeable(f"{clip.path.name} has no face that can be manipulated, no sound, and does not move")


def _tell(item: Item, out: Path) -> None:
    labels = ", ".join(f"{part} {truth}" for part, truth in item.labels.model_dump(mode="json").items())
    print(f"{out}: {item.recipe}, seed {item.seed}: {labels}")
    print(f"{record_of(out)} says how it was made. See what the system makes of it: clipwarden analyze {out}")


def _set(forge: Forge, chosen: argparse.Namespace) -> int:
    names = tuple((chosen.recipe or ",".join(name for name, r in RECIPES.items() if _in_sets(r))).split(","))
    plan = SetPlan(names, chosen.per_clip, chosen.seed, wash_share=0.5 if chosen.launder else 0.0)
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True)) as progress:
        task = progress.add_task("forging", total=None)
        counts = forge_set(
            chosen.file, chosen.out, forge, plan, lambda _, rows: progress.update(task, advance=1, total=rows)
        )
    print(f"{chosen.out}: {counts['items']} items of {counts['rows']} rows, {counts['left_out']} left out")
    return 0


def _in_sets(recipe: Recipe) -> bool:
    return installed(recipe) and recipe.name != UNTOUCHED.name


def _table() -> Table:
    table = Table("recipe", "makes fake", "needs", "what it does")
    for recipe in RECIPES.values():
        lacking = "" if installed(recipe) else f" (install {wheel_of(recipe)})"
        needs = ", ".join(sorted(need.value for need in recipe.needs))
        table.add_row(recipe.name, ", ".join(sorted(recipe.fakes)) or "nothing", needs, recipe.summary + lacking)
    return table
