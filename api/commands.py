"""`clipwarden submit` and `clipwarden status`: the command line's side of the HTTP API."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from clipwarden.api.client import Client
from clipwarden.api.schemas import AnalysisView
from clipwarden.shared.contracts import AnalysisState
from clipwarden.shared.errors import ClipwardenError, ConfigError
from clipwarden.shared.settings import Settings, load_settings

WAIT_S = 1800.0


def gateway_url(settings: Settings) -> str:
    """The gateway to talk to: the setting, else the one that `clipwarden up` noted. Raises ConfigError."""
    return settings.api_url or noted(settings, "api", "gateway", "CLIPWARDEN_API_URL")


def noted(settings: Settings, name: str, what: str, variable: str) -> str:
    """An address that `clipwarden up` noted. Raises ConfigError naming the variable to set instead."""
    ready = settings.state_dir / "ready.json"
    try:
        return str(json.loads(ready.read_text("utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no {what} is known: run `clipwarden up`, or set {variable} ({ready} does not name one)"
        ) from error


def _client() -> Client:
    settings = load_settings()
    return Client(gateway_url(settings), settings.api_key)


def submit_main(argv: Sequence[str]) -> int:
    """Upload files; one that fails does not stop the others. Exit status 1 if any failed or ended without a verdict."""
    parser = argparse.ArgumentParser(prog="clipwarden submit", description="Upload files to a gateway.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--wait", action="store_true", help="wait for the verdicts")
    parser.add_argument("--timeout", type=float, default=WAIT_S, metavar="SECONDS", help="how long to wait for each")
    parser.add_argument("--tag", help="a word of yours that comes back with each analysis")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments = parser.parse_args(argv)
    missing = [str(path) for path in arguments.files if not path.is_file()]
    if missing:
        raise ConfigError(f"there is no file {', '.join(missing)}")
    views: list[AnalysisView] = []
    failed = False
    with _client() as client, _progress() as bars:
        for path in arguments.files:
            with _reported(path.name) as outcome:
                views.append(_upload(client, path, arguments.tag, bars))
            failed |= outcome.failed
        for i, view in enumerate(views if arguments.wait else ()):
            with _reported(view.input.filename) as outcome:
                views[i] = _await(client, view, arguments.timeout, bars)
            failed |= outcome.failed
    _show(views, as_json=arguments.json)
    return int(failed or any(view.ended and view.state is not AnalysisState.DONE for view in views))


def status_main(argv: Sequence[str]) -> int:
    """Read analyses once."""
    parser = argparse.ArgumentParser(prog="clipwarden status", description="Read an analysis from a gateway.")
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments = parser.parse_args(argv)
    with _client() as client:
        views = [client.get(analysis_id) for analysis_id in arguments.ids]
    _show(views, as_json=arguments.json)
    return 0


@dataclass
class _Outcome:
    failed: bool = False


@contextmanager
def _reported(name: str) -> Iterator[_Outcome]:
    """Say on stderr what failed for this file, and go on."""
    outcome = _Outcome()
    try:
        yield outcome
    except ClipwardenError as error:
        outcome.failed = True
        print(f"clipwarden: {name}: {error}", file=sys.stderr)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _upload(client: Client, path: Path, tag: str | None, bars: Progress) -> AnalysisView:
    bar = bars.add_task(f"upload {path.name}", total=path.stat().st_size)
    view = client.submit(path, tag=tag, progress=lambda sent, total: bars.update(bar, completed=sent, total=total))
    bars.remove_task(bar)
    return view


def _await(client: Client, view: AnalysisView, timeout_s: float, bars: Progress) -> AnalysisView:
    bar = bars.add_task(f"analyse {view.input.filename}", total=100)
    ended = client.wait(view.id, timeout_s, progress=lambda now: bars.update(bar, completed=now.percent))
    bars.remove_task(bar)
    return ended


def _show(views: Sequence[AnalysisView], *, as_json: bool) -> None:
    if as_json:
        for view in views:
            print(view.model_dump_json())
        return
    for view in views:
        print("\n".join(_lines(view)))


def _lines(view: AnalysisView) -> Iterator[str]:
    """The id first and whole, to be copied; then the verdict or how far it is, then one line a reason."""
    state = str(view.state) if view.ended else f"{view.state} {view.percent}%"
    yield f"{view.id}  {state}  {view.input.filename}"
    if view.verdict:
        p = view.verdict.probability
        yield f"  {view.verdict.label}" + ("" if p is None else f", P(fake) {p:.3f}")
        yield from (f"  {reason.text}" for reason in view.verdict.reasons)
    if view.branches:
        yield "  " + ", ".join(f"{name} {branch.code or branch.status}" for name, branch in view.branches.items())
    if view.error:
        yield f"  {view.error.message}"
