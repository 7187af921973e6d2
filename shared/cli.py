"""The command line: a lazy table of strings; each command lives in its layer and is imported when it is called."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from clipwarden.shared.errors import ClipwardenError

COMMANDS: dict[str, tuple[str, str]] = {
    "analyze": ("clipwarden.models.run:main", "examine files in this process, without services"),
    "probe": ("clipwarden.shared.media.listing:main", "say what files are and how they were made"),
    "submit": ("clipwarden.api.submit_command:main", "have files examined by a gateway"),
    "status": ("clipwarden.api.commands:status_main", "read an analysis from a gateway"),
    "report": ("clipwarden.shared.report.command:main", "write what was found as one HTML file, to print"),
    "up": ("clipwarden.shared.local.up:main", "run the whole system on this machine"),
    "demo": ("clipwarden.shared.local.demo:main", "run the system once on a sample clip, then stop it"),
    "models": ("clipwarden.models.commands:main", "list the detectors, install and check weights, export networks"),
    "train": ("clipwarden.models.training.cli:main", "train a detector or the fusion heads"),
    "evaluate": (
        "clipwarden.models.training.evaluation.cli:main",
        "measure the installed detectors on labelled files",
    ),
    "forge": (
        "clipwarden.models.training.forge.commands:main",
        "make a manipulated clip, to see the system react, or a labelled set of them",
    ),
    "fusion": (
        "clipwarden.workers.replay:main",
        "import and export heads, choose policies, replay stored analyses under another bundle",
    ),
    "serve": ("clipwarden.api.app:main", "run the gateway"),
    "keys": ("clipwarden.api.keys:main", "make, list and revoke API keys"),
    "webhooks": ("clipwarden.api.webhook_commands:main", "show and rotate the secrets that sign callbacks"),
    "worker": ("clipwarden.workers.serve:main", "run the worker of one queue"),
    "sweep": (
        "clipwarden.workers.sweep:main",
        "re-send what was lost, end what is overdue, delete what is past its time",
    ),
    "flower": ("clipwarden.workers.flower:main", "show operators what the workers do"),
    "db": ("clipwarden.shared.database:main", "create or upgrade the database schema"),
    "pipeline": (
        "clipwarden.workers.pipeline:main",
        "publish the installed detectors as the pipeline of new analyses",
    ),
    "doctor": (
        "clipwarden.shared.local.doctor:main",
        "say what is missing on this machine and how to get it",
    ),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: clipwarden COMMAND [--help | ARGUMENTS]", "", *lines])


def command(name: str) -> Callable[[Sequence[str]], int]:
    """Import the function behind a command. KeyError for an unknown one."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: Callable[[Sequence[str]], int] = getattr(import_module(module), attribute)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status 0 done, 1 the command's own failure, 2 wrong use or a failure with a sentence."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        from importlib.metadata import version

        print(version("clipwarden"))
        return 0
    if name not in COMMANDS:
        print(f"clipwarden: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        return command(name)(rest)
    except ClipwardenError as error:
        print(f"clipwarden: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f"clipwarden: {name} needs the Python package {error.name!r}; `clipwarden doctor` says how to get it",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
