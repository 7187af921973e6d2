"""`clipwarden evaluate`: an honest scoreboard of the installed pipeline over any labelled files."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import Laboratory, open_laboratory
from clipwarden.models.training.cli import processes
from clipwarden.models.training.evaluation import comparison, report, seen
from clipwarden.models.training.evaluation.assessment import Assessment, Background, assessed
from clipwarden.models.training.evaluation.ledger import (
    Ledger,
    Scores,
    keep_only,
    once_by_content,
    pipeline_digest,
    read_scores,
)
from clipwarden.models.training.evaluation.manifest import COLUMNS, FAKE, REAL, Item, once, read_manifest, resolved
from clipwarden.models.training.evaluation.robustness import curve, sampled
from clipwarden.models.training.evaluation.scoring import by_key, score_all
from clipwarden.shared.contracts import Branch, Manifest
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

_PAGE_WIDTH = 160
_SAMPLE = 40


def main(argv: Sequence[str]) -> int:
    """Evaluate a manifest or a scores file, or compare two scores files. Raises ConfigError."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.compare:
        return _compare(options)
    if options.manifest is None and options.scores is None:
        parser.error("give a MANIFEST to examine, --scores FILE to measure again, or --compare A B")
    if options.record_training:
        return _record(options)
    if options.out is None:
        parser.error("say where the report goes: --out DIR")
    options.out.mkdir(parents=True, exist_ok=True)
    found = _measured_again(options) if options.scores else _examined(options)
    _print(found)
    print(f"the report is {options.out / report.PAGE}")
    return 0


def _parser() -> argparse.ArgumentParser:
    headings = "; ".join(f"{column}: {', '.join(words)}" for column, words in COLUMNS.items())
    parser = argparse.ArgumentParser(
        prog="clipwarden evaluate",
        description=__doc__,
        epilog=f"Labels: real is spelled {', '.join(REAL)}; fake {', '.join(FAKE)}; case, spaces and hyphens do not "
        f"matter. Headings that are read, the first found wins: {headings}. Only path and label must be there.",
    )
    parser.add_argument(
        "manifest", nargs="?", type=Path, help="CSV with path, label and what else is known of the files"
    )
    parser.add_argument("--out", type=Path, help="folder of the report; a stopped run in it goes on")
    parser.add_argument("--detectors", default="", metavar="A,B", help="run only these detectors")
    parser.add_argument("--jobs", type=processes, default=1, help="processes that examine files (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="measure a scores file again, without running models"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.csv", "B.csv"),
        help="what the first scores file gains over the second",
    )
    parser.add_argument(
        "--robustness",
        nargs="?",
        type=int,
        const=_SAMPLE,
        metavar="N",
        help=f"encode a sample of N files once more, at three strengths, and judge them again (N: {_SAMPLE})",
    )
    parser.add_argument(
        "--trained-on", type=Path, action="append", default=[], metavar="MANIFEST", help="warn of files that are in it"
    )
    parser.add_argument(
        "--record-training",
        metavar="A,B",
        help="instead of evaluating, write down that these detectors (or fusion) were trained on the manifest's files",
    )
    return parser


def _examined(options: argparse.Namespace) -> Assessment:
    """Examine what the ledger lacks, then measure all of it."""
    items = read_manifest(options.manifest)
    kept, again = once(items)
    only = frozenset(name.strip() for name in options.detectors.split(",") if name.strip())
    work = by_key((resolved(options.manifest, item), item) for item in kept)
    ledger = options.out / report.SCORES
    with Fence(MediaLimits()) as fence:
        laboratory = open_laboratory(fence, only)
        pipeline = pipeline_digest(laboratory.manifest)
        detectors = [d.name for branch in Branch for d in laboratory.manifest.ready(branch)]
        with Ledger(ledger, detectors, pipeline) as rows:
            left = {key: todo for key, todo in work.items() if key not in rows.keys}
            scored = score_all(left.values(), laboratory, options.jobs, only)
            for key, record in zip(left, _tracked(scored, len(left), "examining"), strict=True):
                rows.add({**record, "key": key})
        keep_only(ledger, {key: item for key, (_, item) in work.items()})
        scores, copies = once_by_content(read_scores(ledger), {item.path: item.row for item in kept})
        about = _about(options, laboratory.manifest, pipeline, laboratory.bundle.policy)
        background = Background(
            len(items), [*again, *copies], _overlaps(scores, options.trained_on), seen.unrecorded(scores.detectors)
        )
        found = assessed(scores, laboratory.bundle, background, options.seed)
        levels = _robustness(options, list(work.values()), scores, laboratory, pipeline)
    report.write_scores_json(ledger, options.out / "scores.json", about)
    report.write(options.out, found, scores, about, levels)
    return found


def _robustness(
    options: argparse.Namespace, work: list[tuple[Path, Item]], scores: Scores, laboratory: Laboratory, pipeline: str
) -> dict[str, Any]:
    if options.robustness is None:
        return {}
    if options.robustness < 2:
        raise ConfigError("--robustness takes a number of files, 2 or more")
    sample, kinds = sampled(work, scores, options.robustness, options.seed)
    return curve(sample, kinds, scores, laboratory, (options.out, pipeline), options.seed)


def _measured_again(options: argparse.Namespace) -> Assessment:
    if options.robustness is not None:
        raise ConfigError("--robustness needs the files themselves: give the manifest instead of --scores")
    whole = read_scores(options.scores)
    scores, copies = once_by_content(whole)
    bundle, _ = read_bundle(bundle_path())
    made_by = ", ".join(sorted({str(p) for p in scores.text["pipeline"] if p})) or "unknown"
    about = _about(options, local_manifest(scores.detectors).only(scores.detectors or None), made_by, bundle.policy)
    background = Background(
        len(whole),
        copies,
        _overlaps(scores, options.trained_on),
        seen.unrecorded(scores.detectors),
        made_by,
        about["installed"],
    )
    found = assessed(scores, bundle, background, options.seed)
    report.write(options.out, found, scores, about, {})
    return found


def _overlaps(scores: Scores, manifests: Iterable[Path]) -> list[seen.Overlap]:
    known = [*seen.shipped(scores.detectors), *(seen.trained_on(path) for path in manifests)]
    found = (seen.overlap(scores, trained) for trained in known)
    return [o for o in found if o.files or o.people]


def _about(options: argparse.Namespace, manifest: Manifest, pipeline: str, policy: str) -> dict[str, Any]:
    """Which pipeline the scores are of, which is installed, and the latter's models: with --scores these differ."""
    ready = [d for branch in Branch for d in manifest.ready(branch)]
    return {
        "manifest": str((options.scores or options.manifest).name),
        "pipeline": pipeline,
        "installed": pipeline_digest(manifest),
        "fusion": manifest.fusion,
        "faces": manifest.faces,
        "policy": policy,
        "seed": options.seed,
        "models": {d.name: {"version": d.version, "weights": d.weights, "dtype": d.dtype} for d in ready},
    }


def _compare(options: argparse.Namespace) -> int:
    gains = comparison.compared(options.compare[0], options.compare[1], options.seed)
    _console().print(comparison.table(gains))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        comparison.write(options.out / "comparison.json", options.compare, gains)
    return 0


def _record(options: argparse.Namespace) -> int:
    names = [name.strip() for name in options.record_training.split(",") if name.strip()]
    known = {d.name for d in local_manifest().detectors} | {seen.FUSION}
    if strange := set(names) - known:
        raise ConfigError(f"no such detector: {', '.join(sorted(strange))}")
    trained = seen.trained_on(options.manifest)
    print(f"wrote {seen.record(names, trained)}: {len(trained.files)} files for {', '.join(names)}")
    return 0


def _print(found: Assessment) -> None:
    table = Table(
        "", "items (real)", "AUC", "source-matched AUC", "EER", "FPR at threshold", "TPR at threshold", box=None
    )
    for name, measured in {"fused": found.fused, **found.detectors, **found.baselines}.items():
        count = found.counts[name]
        names = ("auc", "source_matched_auc", "eer", "fpr_at_threshold", "tpr_at_threshold")
        cells = (str(measured[n]) if n in measured else "undefined" for n in names)
        table.add_row(name, f"{count['items']} ({count['real']})", *cells)
    console = _console()
    console.print(table)
    covered = found.coverage
    refused = ", ".join(f"{n} {code}" for code, n in covered["refused"].items()) or "none refused"
    print(f"{covered['rows']} rows, {covered['examined']} examined, {refused}, {covered['duplicates']} duplicates")
    for warning in found.warnings:
        print(f"warning: {warning['text']}")


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    return console


def _tracked(rows: Iterable[Any], total: int, words: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(rows, total=total, description=words)
