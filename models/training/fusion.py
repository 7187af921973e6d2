"""Fits the fusion heads from the out-of-fold scores that the detectors' runs left behind.

Heads over several branches are fitted half on development clips with their own sound (label: was the clip manipulated)
and half on composites of clips and utterances, whose sound has a label too. What the sound of a fake clip is, genuine
or made, is mostly unknown: heads over both branches are measured on composites alone, in which each
real clip makes one real row. Heads of one branch are the same ones less the columns that are absent, and are measured
on clips or utterances alone. The class prior is one half everywhere.
"""

import argparse
import hashlib
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Display

from clipwarden.models.catalogue import PROBABILITY_EDGE, logit
from clipwarden.models.fusion.bundle import FORMAT, SEEDS, FusionBundle, bundle_path, write_bundle
from clipwarden.models.fusion.policies import PREDEFINED
from clipwarden.models.training.composites import Composite, Part, composites
from clipwarden.models.training.evaluation import seen
from clipwarden.models.training.fusion_card import GAINED, HEADINGS, card, cells_of, gained, gains
from clipwarden.models.training.head_table import Apart, Bools, Floats, Table
from clipwarden.models.training.heads import DEFAULT_POLICY, Family, by_fold, fit_family
from clipwarden.models.training.run_folder import read_table
from clipwarden.shared.contracts import Branch
from clipwarden.shared.errors import ConfigError

PICTURES: Final[dict[str, str]] = {
    "frame_stats_score": "frame_stats/scores.csv",
    "forensic_score": "forensic_mlp/scores.csv",
}
"""Column of the heads → scores of the development clips in the run folders; the first names label and fold."""

SOUNDS: Final[dict[str, tuple[str, str]]] = {
    "audio_prob_fake": ("cqcc_cnn/scores_video.csv", "cqcc_cnn/scores.csv"),
    "speech_stats_prob_fake": ("speech_stats/scores_video.csv", "speech_stats/scores.csv"),
}
"""Column of the heads → scores of the clips' own sound, and of utterances, genuine and synthetic."""

OWN: Final = "clips with their own sound"
SHARES: Final[dict[str, Mapping[bool, float]]] = {
    OWN: {False: 0.5, True: 0.5},
    "genuine pictures, genuine speech": {False: 0.5},
    "made pictures, made speech": {True: 0.25},
    "made pictures, genuine speech": {True: 0.125},
    "genuine pictures, made speech": {True: 0.125},
}
"""Kind of row → its share among the rows of each label."""

CSV_COLUMNS: Final = ("path", "label", "group", "fold", "score_logit")
FAKE: Final = {"fake": True, "spoof": True, "real": False, "bonafide": False}
_EDGE: Final = abs(logit(PROBABILITY_EDGE))
_PAGE_WIDTH: Final = 140
Scores = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Material:
    """joint: rows of every kind, with `kind` (N,) as SHARES names them; apart: clips, utterances and composites alone.

    paths: every clip and utterance of it.
    """

    joint: Table
    kind: tuple[str, ...]
    apart: Apart
    digest: str
    paths: frozenset[str]


def read_material(runs: Path, seed: int = 0) -> Material:
    """Everything the heads are fitted to. Raises ConfigError if scores are missing or not as expected."""
    pictures = {column: _scores(runs / file) for column, file in PICTURES.items()}
    own = {column: _scores(runs / files[0]) for column, files in SOUNDS.items()}
    speech = {column: _scores(runs / files[1]) for column, files in SOUNDS.items()}
    clips, utterances = parts(pictures), parts(speech)
    made = composites(whole(clips), whole(utterances), seed)
    joint, kind = _joint(clips, own, made)
    apart = {
        frozenset({Branch.VISUAL}): _alone(clips, 0, len(SOUNDS)),
        frozenset({Branch.AUDIO}): _alone(utterances, len(PICTURES), 0),
        frozenset({Branch.VISUAL, Branch.AUDIO}): joint.rows(np.array([k != OWN for k in kind])),
    }
    paths = frozenset(part.path for part in (*clips, *utterances))
    return Material(joint, kind, apart, _digest([pictures, own, speech], made), paths)


def fit_bundle(material: Material, families: Mapping[int, Family]) -> FusionBundle:
    """Fit all heads, measured by the `families` of each fold. Raises ConfigError if the material allows no fit."""
    heads = fit_family(material.joint, f"{OWN}, and composites", material.digest, families, material.apart)
    return FusionBundle(format=FORMAT, policy=DEFAULT_POLICY, policies=PREDEFINED, heads=heads, unfitted=SEEDS)


def parts(scored: Mapping[str, Scores]) -> list[Part]:
    """One per item of the first column's scores, which give label, group and fold; NaN where another has none."""
    first = next(iter(scored.values()))
    if unknown := {r["label"] for r in first.values()} - FAKE.keys():
        raise ConfigError(f"scores with labels other than {', '.join(FAKE)}: {sorted(unknown)}")
    return [
        Part(path, FAKE[row["label"]], row["group"], int(row["fold"]), _row(scored, path))
        for path, row in sorted(first.items())
    ]


def whole(of: Iterable[Part]) -> list[Part]:
    return [part for part in of if not np.isnan(part.x).any()]


def _joint(
    clips: Sequence[Part], own: Mapping[str, Scores], made: Sequence[Composite]
) -> tuple[Table, tuple[str, ...]]:
    """The rows of both kinds; the clips with their own sound lie in the cells of their composites."""
    cell = {c.pictures.path: c.cell for c in made}
    talking = [(p, _row(own, p.path)) for p in clips if p.path in cell]
    kind = [OWN] * len(talking) + [_kind(c) for c in made]
    fake = np.array([p.fake for p, _ in talking] + [c.pictures.fake or c.sound.fake for c in made])
    table = Table(
        columns=(*PICTURES, *SOUNDS),
        x=np.array([[*p.x, *sound] for p, sound in talking] + [[*c.pictures.x, *c.sound.x] for c in made]),
        fake=fake,
        group=np.array([cell[p.path] for p, _ in talking] + [c.cell for c in made]),
        fold=np.array([p.fold for p, _ in talking] + [c.pictures.fold for c in made]),
        kin=_kin([(p.group, "") for p, _ in talking] + [(c.pictures.group, c.sound.group) for c in made]),
    )
    kept = table.holding(range(len(table.columns)))
    sizes = Counter(p.group for p in clips)
    rare = np.array([sizes[p.group] ** -0.5 for p in [*(p for p, _ in talking), *(c.pictures for c in made)]])
    kinds = tuple(k for k, keep in zip(kind, kept, strict=True) if keep)
    return replace(table.rows(kept), share=_shares(kinds, fake[kept], rare[kept])), kinds


def _shares(kinds: Sequence[str], fake: Bools, rare: Floats) -> Floats:
    share = rare.copy()
    for kind in dict.fromkeys(kinds):
        for label in SHARES[kind]:
            of = (np.array(kinds) == kind) & (fake == label)
            share[of] *= SHARES[kind][label] / max(share[of].sum(), 1e-12)
    return share


def _kind(composite: Composite) -> str:
    pictures, sound = ("made" if part.fake else "genuine" for part in (composite.pictures, composite.sound))
    return f"{pictures} pictures, {sound} speech"


def _alone(of: Sequence[Part], before: int, after: int) -> Table:
    """Rows with one kind of scores, the columns before and after them empty."""
    return Table(
        columns=(*PICTURES, *SOUNDS),
        x=np.pad([p.x for p in of], ((0, 0), (before, after)), constant_values=np.nan),
        fake=np.array([p.fake for p in of]),
        group=np.unique([p.group for p in of], return_inverse=True)[1],
        fold=np.array([p.fold for p in of]),
        kin=_kin([(p.group, "") if after else ("", p.group) for p in of]),
    )


def _kin(groups: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Numbers (N, 2) of the groups of pictures and of sound, the same for a name in every table; -1 for none."""
    return np.array([[zlib.crc32(f"{k}/{name}".encode()) if name else -1 for k, name in enumerate(g)] for g in groups])


def _row(scored: Mapping[str, Scores], path: str) -> Floats:
    """The logits of a path, as far from 0 as a head may see them."""
    logits = [float(of[path]["score_logit"]) if path in of else np.nan for of in scored.values()]
    return np.clip(logits, -_EDGE, _EDGE)


def _scores(path: Path) -> dict[str, Mapping[str, str]]:
    return {row["path"]: row for row in read_table(path, CSV_COLUMNS)}


def _digest(scored: Iterable[Mapping[str, Scores]], made: Sequence[Composite]) -> str:
    """SHA-256 over everything of the training table, by column and item, and which composites were made."""
    lines = [
        "\t".join((column, *(row[name] for name in CSV_COLUMNS)))
        for of in scored
        for column, scores in of.items()
        for _, row in sorted(scores.items())
    ]
    lines += [f"{c.pictures.path}\t{c.sound.path}" for c in made]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def main(argv: Sequence[str]) -> int:
    options = _options(argv)
    target: Path = options.out or bundle_path()
    material = read_material(options.runs)
    learnt = _learnt(options.data, material.paths) if options.install else None
    families = by_fold(material.joint, material.apart)
    bundle = fit_bundle(material, families)
    found = gains(material.joint, material.kind, families)
    write_bundle(target, bundle)
    if learnt:
        (bundle_path().parents[1] / "cards" / "fusion.md").write_text(card(bundle, found), "utf-8")
        seen.record([seen.FUSION], learnt)
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    console.print(_grid(("head", *HEADINGS), ((head.name, *cells_of(head)) for head in bundle.heads)))
    console.print(_grid(("on", *GAINED), (gained(gain) for gain in found)))
    console.print(f"wrote {target}, {bundle.digest}", soft_wrap=True)
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clipwarden train fusion", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the detectors' run folders")
    parser.add_argument("--out", type=Path, help="where to write the bundle")
    parser.add_argument("--install", action="store_true", help="make it this installation's bundle; needs --data")
    parser.add_argument("--data", type=Path, help="the data that the detectors learnt from; `evaluate` warns of it")
    options = parser.parse_args(argv)
    if (options.out is None) == (not options.install):
        parser.error("say where the bundle goes: --out FILE or --install")
    if options.install and options.data is None:
        parser.error("--install records what was learnt from: give --data DIR")
    return options


def _learnt(data: Path, paths: Collection[str]) -> seen.Trained:
    both = [seen.trained_on(data / corpus / "manifest.csv", paths) for corpus in ("audio", "video")]
    return seen.Trained(seen.FUSION, both[0].files | both[1].files, both[0].people | both[1].people)


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Display:
    display = Display(*headings)
    for row in rows:
        display.add_row(*row)
    return display
