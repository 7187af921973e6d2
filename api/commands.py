"""`clipwarden submit` and `clipwarden status`: the command line's side of the HTTP API."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from clipwarden.api.client import Client
from clipwarden.api.schemas import AnalysisView
from clipwarden.shared.contracts import AnalysisState
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import Settings, load_settings

WAIT_S = 1800.0


def gateway_url(settings: Settings) -> str:
    """The gateway to talk to: the setting, else the one that `clipwarden up` noted. Raises ConfigError."""
    if settings.api_url:
        return settings.api_url
    ready = settings.state_dir / "ready.json"
    try:
        return str(json.loads(ready.read_text("utf-8"))["api"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no gateway is known: run `clipwarden up`, or set CLIPWARDEN_API_URL ({ready} does not name one)"
        ) from error


def submit_main(argv: Sequence[str]) -> int:
    """Upload files. Exit status 1 if any analysis that was waited for ended without a verdict."""
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
    with Client(gateway_url(load_settings())) as client, _progress() as bars:
        views = [_upload(client, path, arguments.tag, bars) for path in arguments.files]
        if arguments.wait:
            views = [_await(client, view, arguments.timeout, bars) for view in views]
    _show(views, as_json=arguments.json)
    return int(any(view.ended and view.state is not AnalysisState.DONE for view in views))


def status_main(argv: Sequence[str]) -> int:
    """Read analyses once."""
    parser = argparse.ArgumentParser(prog="clipwarden status", description="Read an analysis from a gateway.")
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    arguments = parser.parse_args(argv)
    with Client(gateway_url(load_settings())) as client:
        views = [client.get(analysis_id) for analysis_id in arguments.ids]
    _show(views, as_json=arguments.json)
    return 0


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
    table = Table("file", "analysis", "state", "verdict", "P(fake)", "branches", "note", box=None, pad_edge=False)
    for view in views:
        table.add_row(*_row(view))
    Console(soft_wrap=True, markup=False).print(table)


def _row(view: AnalysisView) -> tuple[str, ...]:
    verdict = view.verdict
    branches = ", ".join(f"{name} {branch.code or branch.status}" for name, branch in view.branches.items())
    note = view.error.message if view.error else " ".join(r.text for r in verdict.reasons) if verdict else ""
    probability = "" if verdict is None or verdict.probability is None else f"{verdict.probability:.3f}"
    state = f"{view.state} {view.percent}%" if not view.ended else str(view.state)
    return view.input.filename, str(view.id), state, verdict.label if verdict else "", probability, branches, note
