"""`clipwarden fusion import | export | policies`: what an operator does with bundles."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clipwarden.models.fusion.bundle import (
    FusionBundle,
    Head,
    Policy,
    bundle_path,
    read_bundle,
    write_bundle,
)
from clipwarden.models.fusion.joblib_file import imported, read_joblib, write_joblib
from clipwarden.models.fusion.policies import Figures, figures, read_policies, with_policies
from clipwarden.shared.contracts import Thresholds
from clipwarden.shared.errors import ConfigError

IMPORTED_POLICY = "imported"
_PAGE_WIDTH = 140


def add_commands(commands: Any) -> None:
    """Add the three commands to argparse's subparsers; each sets `run`."""
    parser = commands.add_parser("import", help="take a head from a .joblib file of the 5-way pipeline's layout")
    parser.add_argument("file", type=Path)
    parser.add_argument("--digest", help="sha256:… of the file that is trusted")
    parser.add_argument("--name", help="name of the head, where its columns are not one of the 5-way pipeline's")
    parser.add_argument("--real", type=float, default=0.3, help="real at or below this probability (default 0.3)")
    parser.add_argument("--fake", type=float, default=0.7, help="fake at or above this probability (default 0.7)")
    parser.add_argument(
        "--constrain", action="store_true", help="set wrong signs to 0 and the temperature to its bound"
    )
    _bundles(parser, import_main)
    parser = commands.add_parser("export", help="write a head as .joblib for scikit-learn")
    parser.add_argument("head")
    parser.add_argument("file", type=Path)
    parser.add_argument("--bundle", type=Path, help="default: the installed one")
    parser.set_defaults(run=export_main)
    parser = commands.add_parser("policies", help="show what the policies do, add an operator's, choose one")
    parser.add_argument("--add", type=Path, metavar="FILE", help="[policies.NAME] tables in TOML, or the same in JSON")
    parser.add_argument("--default", metavar="NAME", help="the policy that verdicts follow")
    _bundles(parser, policies_main)


def _bundles(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--bundle", type=Path, help="bundle to start from (default: the installed one)")
    parser.add_argument("--out", type=Path, help="where to write the new bundle")
    parser.add_argument("--install", action="store_true", help="make it this installation's bundle")
    parser.set_defaults(run=run)


def import_main(options: argparse.Namespace) -> int:
    """The head joins the bundle under a policy of its own, whose thresholds the operator answers for."""
    bundle = _start(options)
    head, changes = imported(
        read_joblib(options.file, options.digest), options.name, f"unknown clips ({options.digest})", options.constrain
    )
    joined = with_head(bundle, head, _thresholds(options.real, options.fake))
    for change in changes:
        print(f"changed {change}")
    print(f"head {head.name}: {len(head.feature_cols)} columns, policy {IMPORTED_POLICY}")
    return _finish(options, joined)


def _thresholds(real: float, fake: float) -> Thresholds:
    try:
        return Thresholds(real=real, fake=fake)
    except ValueError as error:
        raise ConfigError(
            f"--real and --fake are probabilities, the first below the second, not {real} and {fake}"
        ) from (error)


def with_head(bundle: FusionBundle, head: Head, thresholds: Thresholds) -> FusionBundle:
    """The bundle with the head in the place of its name; verdicts follow the policy with these thresholds."""
    heads = tuple(h for h in bundle.heads if h.name != head.name)
    fixed = {IMPORTED_POLICY: Policy(thresholds=thresholds)}
    unfitted = tuple(h for h in bundle.unfitted if h.name != head.name)
    return with_policies(
        bundle.model_copy(update={"heads": (*heads, head), "unfitted": unfitted}), fixed, IMPORTED_POLICY
    )


def export_main(options: argparse.Namespace) -> int:
    head = _start(options).head(options.head)
    write_joblib(options.file, head)
    print(f"wrote {options.file}: {', '.join(head.feature_cols)}")
    return 0


def policies_main(options: argparse.Namespace) -> int:
    """Without changes only the table is printed."""
    bundle = _start(options)
    changed = bool(options.add or options.default)
    if changed:
        bundle = with_policies(bundle, read_policies(options.add) if options.add else {}, options.default)
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    console.print(_table(figures(bundle)))
    print(f"verdicts follow the policy {bundle.policy}")
    for head in bundle.heads:
        if without := sorted(bundle.policies.keys() - head.thresholds.keys()):
            print(f"head {head.name} has too few held-out clips for: {', '.join(without)}")
    for seed in bundle.unfitted:
        print(f"head {seed.name} is not fitted: import one with columns {', '.join(seed.feature_cols)}")
    return _finish(options, bundle) if changed else 0


def _start(options: argparse.Namespace) -> FusionBundle:
    return read_bundle(options.bundle or bundle_path())[0]


def _finish(options: argparse.Namespace, bundle: FusionBundle) -> int:
    if (options.out is None) == (not options.install):
        raise ConfigError("say where the bundle goes: --out FILE or --install")
    target = options.out or bundle_path()
    write_bundle(target, bundle)
    print(f"wrote {target}, {bundle.digest}")
    return 0


def _table(rows: Sequence[Figures]) -> Table:
    """What is wrong among real clips comes with its upper bound and the number of clips it stands on."""
    names = ("policy", "head", "real to", "fake from", "real clips called fake", "bound", "fake found", "fake missed")
    table = Table(*names, "conclusive", box=None)
    for f in rows:
        table.add_row(
            f.policy,
            f.head,
            f"{f.thresholds.real:.3f}",
            f"{f.thresholds.fake:.3f}",
            f"{f.called_fake} of {f.real} ({f.real_groups} groups)",
            f"{f.false_positive_bound:.1%}",
            *(f"{share:.0%}" for share in (f.found, f.missed, f.conclusive)),
        )
    return table
