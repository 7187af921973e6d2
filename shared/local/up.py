"""`clipwarden up`: run the whole system on this machine until it is told to stop."""

import argparse
import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from clipwarden.shared.errors import ClipwardenError
from clipwarden.shared.local.stack import PASSWORD_FILE, Stack, command_line
from clipwarden.shared.processes import PROCESSES, WATCHER
from clipwarden.shared.settings import load_settings

__all__ = ["Stack", "main"]

READY_TIMEOUT_S = 600.0


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when told to stop, 1 when something would not start or stay up."""
    chosen = _parser().parse_args(argv)
    settings = load_settings()
    console = Console(stderr=chosen.json, highlight=False, soft_wrap=True)
    with console.status("starting") as status:
        note = _teller(console, status.update)
        table = (*PROCESSES, WATCHER) if importlib.util.find_spec("flower") else PROCESSES
        stack = Stack(chosen.state or settings.state_dir, settings, chosen.port, table=table, note=note)
        _stop_on_signals(stack)
        try:
            stack.start()
            stack.wait_ready(READY_TIMEOUT_S)
        except ClipwardenError as error:
            return _ended(stack, console, error)
    _announce(stack, console, as_json=chosen.json)
    while not stack.wait_ended(0.5):
        pass
    return _ended(stack, console, stack.failure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clipwarden up", description="Run the whole system on this machine.")
    parser.add_argument("--state", type=Path, metavar="DIR", help="directory of all its data (CLIPWARDEN_STATE_DIR)")
    parser.add_argument("--port", type=int, metavar="N", help="the gateway's port; default: 8000, or a free one")
    parser.add_argument("--json", action="store_true", help="print one JSON line when everything answers")
    return parser


def _teller(console: Console, update: Callable[[str], None]) -> Callable[[str], None]:
    """Notes go to the spinner on a terminal as well, and are lines everywhere."""

    def tell(text: str) -> None:
        console.print(f"· {text}", markup=False)
        update(text)

    return tell


def _stop_on_signals(stack: Stack) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        stack.ask_to_stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _announce(stack: Stack, console: Console, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"event": "ready", **stack.facts()}) + "\n")
        sys.stdout.flush()
        return
    console.print(f"\nClipwarden answers at {stack.api_url}", markup=False)
    console.print(f"  page          {stack.api_url}/page/", markup=False)
    console.print(
        f"  send a clip   CLIPWARDEN_API_URL={stack.api_url} {' '.join(command_line())} submit FILE --wait",
        markup=False,
    )
    if stack.flower_url:
        secret = "as set" if stack.settings.flower_password else f"in {stack.state_dir / PASSWORD_FILE}"
        user = stack.settings.flower_user
        console.print(f"  Flower        {stack.flower_url} (user {user}, password {secret})", markup=False)
    console.print(f"  data, logs    {stack.state_dir}", markup=False)
    console.print("  stop          Ctrl-C (twice: without waiting for running tasks)")


def _ended(stack: Stack, console: Console, error: ClipwardenError | None) -> int:
    as_asked = stack.told_to_stop and stack.failure is None
    stack.stop()
    if as_asked:
        console.print("· stopped")
        return 0
    sys.stderr.write(f"clipwarden: {error}\n")
    return 1
