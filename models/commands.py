"""`clipwarden models`: a lazy table of what is done with detectors and their weights."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from clipwarden.models.weights import bring

ACTIONS: dict[str, tuple[str, str]] = {
    "list": ("clipwarden.models.listing:main", "list the detectors and the state of their weights"),
    "pull": ("clipwarden.models.hub.pull:main", "fetch weights from a hub, check and install them"),
    "install": ("clipwarden.models.hub.install:main", "check, convert and install a file that you have, or remove it"),
    "verify": ("clipwarden.models.hub.verify:main", "compare the installed files with their recorded digests"),
    "export": ("clipwarden.models.export:main", "write a detector's network as ONNX or TorchScript"),
}
"""Subcommand → "module:function", imported when it is called, and its summary."""


BEGINNING = frozenset({"pull", "install"})
"""Those that make the manifest which they are told to add to, if there is none."""


def main(argv: Sequence[str]) -> int:
    """Run one subcommand with what follows its name."""
    options = _parser().parse_args(argv)
    if options.weights is not None:
        if options.action in BEGINNING:
            options.weights.parent.mkdir(parents=True, exist_ok=True)
            options.weights.touch()
        bring(options.weights)
    module, _, attribute = ACTIONS[options.action][0].partition(":")
    run: Callable[[Sequence[str]], int] = getattr(import_module(module), attribute)
    return run(options.arguments)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, ACTIONS))
    summaries = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in ACTIONS.items())
    parser = argparse.ArgumentParser(
        "clipwarden models", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"actions:\n{summaries}"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the weights.toml to add to, instead of the user's"
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see `clipwarden models ACTION --help`")
    return parser
