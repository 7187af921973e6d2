"""`clipwarden train`: makes a detector's weights from the development data, with out-of-fold scores and figures."""

import argparse
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clipwarden.models.training.run_folder import RunFolder

Trainer = Callable[[Path, Path, int, int, Progress], RunFolder]

TRAINERS: dict[str, str] = {
    "forensic_mlp": "clipwarden.models.training.forensic:train_forensic",
    "cqcc_cnn": "clipwarden.models.training.cqcc:train_cqcc",
    "speech_stats": "clipwarden.models.training.speech_stats:train_speech_stats",
    "mel_resnet18": "clipwarden.models.training.seed_run:train_mel",
    "frame_efficientnet_b4": "clipwarden.models.training.seed_run:train_b4",
    "temporal_3dcnn": "clipwarden.models.training.seed_run:train_3dcnn",
    "av_sync": "clipwarden.models.training.sync:train_sync",
    "frame_stats": "clipwarden.models.training.frames:train_frames",
    "tiny_gate": "clipwarden.models.training.gate:train_gate",
    "frame_resnet18": "clipwarden.models.training.resnet:train_resnet",
    "temporal_bilstm": "clipwarden.models.training.bilstm:train_bilstm",
}
"""Detector → "module:function", imported on use."""


def main(argv: Sequence[str]) -> int:
    """Train one detector. Raises ConfigError if the data or the run folder is not as needed."""
    if argv[:1] == ["fusion"]:
        from clipwarden.models.training import fusion

        return fusion.main(argv[1:])
    options = _parser().parse_args(argv)
    out = options.out or Path("runs") / options.detector
    with _progress() as progress:
        seed = _seed(options.detector) if options.seed is None else options.seed
        run = _trainer(options.detector)(options.data, out, seed, options.jobs, progress)
    console = Console()
    console.print(f"scores, figures and weights are in {run.path}")
    if options.install:
        from clipwarden.models.training.install import install

        for path in install(options.detector, run, options.data):
            console.print(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "clipwarden train", description=__doc__, epilog="`clipwarden train fusion --help` fits the fusion heads."
    )
    parser.add_argument("detector", choices=TRAINERS)
    parser.add_argument("--data", type=Path, required=True, help="folder with audio/ and video/, each with folds.csv")
    parser.add_argument("--out", type=Path, help="run folder; a stopped run in it goes on (default runs/DETECTOR)")
    parser.add_argument("--seed", type=int, help="default: the recipe's, else 0")
    parser.add_argument("--jobs", type=processes, default=os.cpu_count() or 1, help="processor cores to use")
    parser.add_argument("--install", action="store_true", help="put weights, digest and card into this installation")
    return parser


def processes(text: str) -> int:
    """A number of processes or cores, 1 or more; for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more, not {text!r}")
    return int(text)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _seed(detector: str) -> int:
    from clipwarden.models.training.seed_fit import RECIPES

    return RECIPES[detector].seed if detector in RECIPES else 0


def _trainer(detector: str) -> Trainer:
    module, _, name = TRAINERS[detector].partition(":")
    found: Trainer = getattr(import_module(module), name)
    return found
